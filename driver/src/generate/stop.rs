//! Texts that end a text: what may still become one is held back until it is told.

/// Watches a text that comes in parts.
pub struct Stops {
    stops: Vec<String>,
    held: String,
}

impl Stops {
    /// Watches for these; empty ones are none.
    pub fn new(stops: &[String]) -> Stops {
        Stops {
            stops: stops.iter().filter(|s| !s.is_empty()).cloned().collect(),
            held: String::new(),
        }
    }

    /// Takes the next part: what can be shown now, and whether the text ends behind that.
    pub fn push(&mut self, part: &str) -> (String, bool) {
        self.held += part;
        let found = self.stops.iter().filter_map(|s| self.held.find(s.as_str())).min();
        if let Some(at) = found {
            let shown = self.held[..at].to_owned();
            self.held.clear();
            return (shown, true);
        }
        // The longest end that one of them may begin with.
        let begins = |at: &usize| self.stops.iter().any(|s| s.starts_with(&self.held[*at..]));
        let at = self
            .held
            .char_indices()
            .map(|(i, _)| i)
            .find(begins)
            .unwrap_or(self.held.len());
        let rest = self.held.split_off(at);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// What was held back of a text that ended otherwise.
    pub fn rest(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_become_a_stop_is_held_back() {
        let mut s = Stops::new(&["\n\nQ:".into(), "ende".into(), String::new()]);
        assert_eq!(s.push("a line\n"), ("a line".into(), false));
        assert_eq!(s.push("\n"), (String::new(), false));
        assert_eq!(s.push("and é"), ("\n\nand é".into(), false));
        assert_eq!(s.push(" en"), (" ".into(), false));
        assert_eq!(s.push("d"), (String::new(), false));
        assert_eq!(s.push(" of"), ("end of".into(), false));
        assert_eq!(s.push("\n\nQ: what"), (String::new(), true));
        assert_eq!(s.rest(), "");
        let mut s = Stops::new(&["abab".into()]);
        assert_eq!(s.push("xaba"), ("x".into(), false));
        assert_eq!(s.push("ab"), ("aba".into(), false));
        assert_eq!(s.push("ab!"), (String::new(), true));
        let mut s = Stops::new(&["stop".into()]);
        s.push("st");
        assert_eq!(s.rest(), "st");
    }
}
