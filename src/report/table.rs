//! Plain tables for listings: a header, rows, columns as wide as what is in them.

use super::text::style::{Style, Tone, chars, pad};

/// Columns between columns.
const GAP: &str = "   ";

/// A table of cells that are safe to print. The last column takes what is left and is not cut.
pub(super) fn table(header: &[&str], rows: &[Vec<String>], style: &Style) -> String {
    let widths: Vec<usize> = (0..header.len())
        .map(|n| rows.iter().filter_map(|r| r.get(n)).map(|c| chars(c)).max().unwrap_or(0).max(header[n].len()))
        .collect();
    let line = |cells: &[String]| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(c, w)| pad(c, *w)).collect();
        padded.join(GAP).trim_end().to_owned()
    };
    let header: Vec<String> = header.iter().map(|h| (*h).to_owned()).collect();
    let mut text = style.paint(Tone::Note, &line(&header)) + "\n";
    for row in rows {
        text += &line(row);
        text.push('\n');
    }
    text
}
