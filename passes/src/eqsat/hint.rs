//! The known name that an unknown one is likely meant to be, for messages.

/// `, did you mean `NAME`?` for the known name that is nearest to one that is not known; empty where none is near: at most a third
/// of the letters may have to change, and names of one or two letters are like every other.
pub fn near<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let most = name.chars().count() / 3;
    let distance = |k: &'a str| (strsim::osa_distance(name, k), k);
    let nearest = known.into_iter().map(distance).filter(|(d, _)| *d <= most).min();
    nearest.map_or(String::new(), |(_, k)| format!(", did you mean `{k}`?"))
}

#[cfg(test)]
mod tests {
    use super::near;

    #[test]
    fn only_near_names_are_meant() {
        let known = ["transpose", "reshape", "exp", "abs"];
        assert_eq!(near("trnaspose", known), ", did you mean `transpose`?");
        assert_eq!(near("rehape", known), ", did you mean `reshape`?");
        assert_eq!(near("expp", known), ", did you mean `exp`?");
        for name in ["broadcast", "x", "ab", ""] {
            assert_eq!(near(name, known), "", "{name}");
        }
    }
}
