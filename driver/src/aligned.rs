//! Tables of text: cells stand below each other.

/// A line for each row; `right` says which columns end below each other, as numbers do, where the others begin so. Rows may be shorter than
/// others.
pub fn aligned(rows: &[Vec<String>], right: &dyn Fn(usize) -> bool) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let long = |c: usize| rows.iter().filter_map(move |r| r.get(c)).map(|s| s.chars().count());
    let widths: Vec<usize> = (0..columns).map(|c| long(c).max().unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate().map(|(c, (s, &w))| match right(c) {
            true => format!("{s:>w$}"),
            false => format!("{s:<w$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_begin_or_end_below_each_other() {
        let row = |cells: &[&str]| cells.iter().map(|c| c.to_string()).collect::<Vec<_>>();
        let rows = [
            row(&["pass", "time", "of"]),
            row(&["é", "1.25 ms", ""]),
            row(&["last one"]),
        ];
        assert_eq!(
            aligned(&rows, &|c| c == 1),
            ["pass         time  of", "é         1.25 ms", "last one"]
        );
        assert_eq!(aligned(&[], &|_| true), [""; 0]);
    }
}
