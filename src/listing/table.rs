//! Tables as Python's PrettyTable draws them: scripts that cut the original's tables cut ours too.

use std::fmt;

/// A table of left-aligned columns.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
    widths: Vec<usize>,
}

impl Table {
    /// A table that has only its header yet.
    pub(super) fn new(header: &[&str]) -> Self {
        let mut table = Self { rows: Vec::new(), widths: vec![0; header.len()] };
        table.add(header.iter().map(|&title| title.to_owned()).collect());
        table
    }

    /// Adds a row: a cell for each column.
    pub(super) fn add(&mut self, row: Vec<String>) {
        debug_assert_eq!(row.len(), self.widths.len());
        let row: Vec<_> = row.into_iter().map(printable).collect();
        for (width, cell) in self.widths.iter_mut().zip(&row) {
            *width = (*width).max(cell.chars().count());
        }
        self.rows.push(row);
    }

    fn rule(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for width in &self.widths {
            write!(f, "+{:-<1$}", "", width + 2)?;
        }
        writeln!(f, "+")
    }
}

/// With the line feed of the last line.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rule(f)?;
        for (number, row) in self.rows.iter().enumerate() {
            for (cell, width) in row.iter().zip(&self.widths) {
                write!(f, "| {cell:<width$} ")?;
            }
            writeln!(f, "|")?;
            if number == 0 {
                self.rule(f)?;
            }
        }
        self.rule(f)
    }
}

/// Other programs write the records: their text must neither break the table nor move the cursor.
fn printable(cell: String) -> String {
    if !cell.contains(char::is_control) {
        return cell;
    }
    cell.chars().fold(String::new(), |mut text, c| {
        if c.is_control() {
            text.extend(c.escape_default())
        } else {
            text.push(c)
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(header: &[&str], rows: &[&[&str]]) -> String {
        let mut table = Table::new(header);
        for row in rows {
            table.add(row.iter().map(|&cell| cell.to_owned()).collect());
        }
        table.to_string()
    }

    const HEADER: [&str; 6] = ["ID", "Image", "Builder", "Formats", "State", "Age"];

    /// The expected text was printed by PrettyTable with `align = 'l'`.
    #[test]
    fn a_table_is_drawn_as_by_pretty_table() {
        let rows: [&[&str]; 2] = [
            &["debian-0123", "debian", "b.example", "qcow2,raw", "ready", "00:00:00:12"],
            &["x", "y", "", "", "True", ""],
        ];
        let expected = "\
+-------------+--------+-----------+-----------+-------+-------------+
| ID          | Image  | Builder   | Formats   | State | Age         |
+-------------+--------+-----------+-----------+-------+-------------+
| debian-0123 | debian | b.example | qcow2,raw | ready | 00:00:00:12 |
| x           | y      |           |           | True  |             |
+-------------+--------+-----------+-----------+-------+-------------+
";
        assert_eq!(draw(&HEADER, &rows), expected);
    }

    #[test]
    fn a_table_without_rows_has_its_header() {
        let expected = "\
+----+-------+---------+---------+-------+-----+
| ID | Image | Builder | Formats | State | Age |
+----+-------+---------+---------+-------+-----+
+----+-------+---------+---------+-------+-----+
";
        assert_eq!(draw(&HEADER, &[]), expected);
    }

    #[test]
    fn cells_are_measured_in_characters_and_controls_are_shown() {
        let expected = "\
+-----------------+----+
| A               | B  |
+-----------------+----+
| \\u{1b}[31mred\\n | é– |
+-----------------+----+
";
        assert_eq!(draw(&["A", "B"], &[&["\u{1b}[31mred\n", "é–"]]), expected);
    }
}
