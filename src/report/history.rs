//! The history of a tag: which digest it had, from when to when.

use serde_json::{Value, json};

use super::table::table;
use super::text::style::{Glyph, Style};
use super::{Options, distinct, moment, visible};
use crate::history::Period;

/// One period, as the admin API lists it.
pub fn history_json(period: &Period) -> Value {
    json!({
        "digest": period.digest.as_ref().map(|d| d.as_str()),
        "from": period.from.to_string(),
        "to": period.to.map(|t| t.to_string()),
        "known": period.known.as_str(),
        "origin": period.origin.as_str(),
        "actor": period.actor,
    })
}

/// The periods of one tag, oldest first as given, shown newest first. The whole digests stand below the
/// table, for `tidewaiter accept`.
pub fn history_text(reference: &str, periods: &[Period], options: &Options) -> String {
    let style = Style::new(options);
    let reference = style.text(&visible(reference));
    if periods.is_empty() {
        return format!("{reference}: no record\n");
    }
    let none = style.glyph(Glyph::None);
    let rows: Vec<Vec<String>> = periods
        .iter()
        .rev()
        .map(|p| {
            vec![
                p.digest.as_ref().map_or("not there".to_owned(), |d| d.short().to_owned()),
                moment(p.from),
                p.to.map_or("now".to_owned(), moment),
                p.known.as_str().to_owned(),
                p.origin.as_str().to_owned(),
                p.actor.as_deref().map_or(none.to_owned(), |a| style.text(a)),
            ]
        })
        .collect();
    let mut text = format!("{reference}\n\n");
    text += &table(&["digest", "from", "to", "known", "origin", "actor"], &rows, &style);
    text.push('\n');
    for digest in distinct(periods.iter().rev().filter_map(|p| p.digest.as_ref())) {
        text += &format!("{} is {digest}\n", digest.short());
    }
    text
}
