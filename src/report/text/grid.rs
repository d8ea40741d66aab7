//! The grid of a repository: a tag on each row, a platform in each column.

use super::causes::{missing, tag_name};
use super::style::{Glyph, Style, Tone, chars, pad};
use crate::image::{Platform, PlatformRequirement as Requirement};
use crate::policy::{Finding, Kind, Outcome, Reason, Verdict};

/// Columns between the columns: wide ones round names, narrow ones between platforms.
const GAP: &str = "   ";
const PLATFORM_GAP: &str = "  ";
/// The narrowest column of classes before it is cut.
const CLASS_MIN: usize = 8;

/// A platform's column: what a policy asks for, or what an image offers besides.
struct Column {
    /// What is looked for; the version of one that is only offered is cut to the parts that make a build.
    wanted: Requirement,
}

/// What a cell says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cell {
    Covered,
    Missing,
    NotAsked,
    Unknown,
}

/// The grid of these verdicts; empty where there is nothing to put into it.
pub(super) fn grid(verdicts: &[&Verdict], style: &Style) -> String {
    let rows: Vec<&Verdict> =
        verdicts.iter().copied().filter(|v| v.subject.tag.is_some() || v.subject.digest.is_some()).collect();
    if rows.is_empty() {
        return String::new();
    }
    let columns = columns(&rows);
    let all_linux = columns.iter().all(|c| c.wanted.platform().os() == "linux");
    let labels: Vec<String> = columns
        .iter()
        .map(|c| {
            let name = c.wanted.to_string();
            if all_linux { name.trim_start_matches("linux/").to_owned() } else { name }
        })
        .map(|name: String| style.text(&name))
        .collect();

    let tag_max = (style.width / 3).max(12);
    let tags: Vec<String> = rows.iter().map(|v| style.cut(&tag_name(v), tag_max)).collect();
    let tag_width = tags.iter().map(|t| chars(t)).max().unwrap_or(0).max("tag".len());
    let digests: Vec<&str> =
        rows.iter().map(|v| v.subject.digest.as_ref().map_or(style.glyph(Glyph::None), |d| d.short())).collect();
    let digest_width = digests.iter().map(|d| chars(d)).max().unwrap_or(0).max("digest".len());
    let classes: Vec<String> = rows.iter().map(|v| style.text(&class_text(v))).collect();
    let class_width = classes.iter().map(|c| chars(c)).max().unwrap_or(0);

    let before = 2 + tag_width + GAP.len() + digest_width + GAP.len();
    let platforms: usize = labels.iter().map(|l| chars(l) + PLATFORM_GAP.len()).sum();
    let cells: Vec<Vec<Cell>> = rows.iter().map(|v| columns.iter().map(|c| cell(v, c)).collect()).collect();
    // Too many platforms for the width are counted; the findings name those that are missing.
    let counted = before + platforms + 1 + class_width.min(CLASS_MIN * 2) > style.width;

    let line = |tag: &str, digest: &str, middle: &str, room: usize, class: &str| {
        let class = style.cut(class, style.width.saturating_sub(before + room).max(CLASS_MIN));
        let line = format!("  {}{GAP}{}{GAP}{middle}{class}", pad(tag, tag_width), pad(digest, digest_width));
        line.trim_end().to_owned() + "\n"
    };
    let mut text = String::new();
    if counted {
        let count = |cells: &[Cell]| count(cells, style);
        let width = cells.iter().map(|c| chars(&count(c))).max().unwrap_or(0).max("platforms".len());
        let room = width + GAP.len();
        text += &line("tag", "digest", &(pad("platforms", width) + GAP), room, "class");
        for (n, cells) in cells.iter().enumerate() {
            text += &line(&tags[n], digests[n], &(pad(&count(cells), width) + GAP), room, &classes[n]);
        }
        return text;
    }
    let class_gap = if labels.is_empty() { "" } else { GAP };
    let room = (platforms + class_gap.len()).saturating_sub(if labels.is_empty() { 0 } else { PLATFORM_GAP.len() });
    text += &line("tag", "digest", &(labels.join(PLATFORM_GAP) + class_gap), room, "class");
    for (n, cells) in cells.iter().enumerate() {
        let marks: Vec<String> = cells.iter().zip(&labels).map(|(c, label)| mark(*c, chars(label), style)).collect();
        text += &line(&tags[n], digests[n], &(marks.join(PLATFORM_GAP) + class_gap), room, &classes[n]);
    }
    text
}

/// What stands in the column of classes.
pub(in crate::report) fn class_text(verdict: &Verdict) -> String {
    let mut text = match (&verdict.class, verdict.outcome) {
        (Some(class), _) => class.to_string(),
        (None, Outcome::Ignored) => "ignored".to_owned(),
        (None, _) => "no class".to_owned(),
    };
    if let Some(version) = &verdict.at_version {
        text += &format!(", at {version}");
    }
    if verdict.subject.kind == Some(Kind::Artifact) {
        text += " (artifact)";
    }
    text
}

/// How many of the platforms that count for a tag it covers, where there is no room for a column each.
fn count(cells: &[Cell], style: &Style) -> String {
    let of = |cell: Cell| cells.iter().filter(|c| **c == cell).count();
    match (of(Cell::Covered), of(Cell::Missing), of(Cell::Unknown)) {
        (_, _, 1..) => style.glyph(Glyph::Unknown).to_owned(),
        (0, 0, 0) => style.glyph(Glyph::None).to_owned(),
        (covered, missing, 0) => format!("{covered} of {}", covered + missing),
    }
}

fn mark(cell: Cell, width: usize, style: &Style) -> String {
    let (glyph, tone) = match cell {
        Cell::Covered => (Glyph::Yes, Tone::Good),
        Cell::Missing => (Glyph::No, Tone::Bad),
        Cell::NotAsked => (Glyph::None, Tone::Note),
        Cell::Unknown => (Glyph::Unknown, Tone::Warn),
    };
    let left = width.saturating_sub(1) / 2;
    let right = width.saturating_sub(1 + left);
    format!("{}{}{}", " ".repeat(left), style.paint(tone, style.glyph(glyph)), " ".repeat(right))
}

fn cell(verdict: &Verdict, column: &Column) -> Cell {
    if verdict.subject.platforms.iter().any(|p| column.wanted.is_met_by(p)) {
        return Cell::Covered;
    }
    let named = column.wanted.to_string();
    if verdict.findings.iter().filter(|f| demands(f)).flat_map(missing).any(|m| m == named) {
        return Cell::Missing;
    }
    let looked_at = verdict.subject.kind.is_some() || !verdict.findings.iter().any(Finding::is_error);
    if looked_at { Cell::NotAsked } else { Cell::Unknown }
}

/// Whether what a finding expected are platforms that had to be there.
fn demands(finding: &Finding) -> bool {
    matches!(
        finding.reason,
        Reason::MissingPlatform | Reason::NoRequiredPlatform | Reason::Recertify | Reason::PlatformRegression
    )
}

/// The union of what is asked for and what is there: Linux first, then as platforms are usually named.
fn columns(rows: &[&Verdict]) -> Vec<Column> {
    let mut columns: Vec<Column> = Vec::new();
    let demanded = rows.iter().flat_map(|v| v.findings.iter().filter(|f| demands(f))).flat_map(|f| &f.expected);
    for wanted in demanded.filter_map(|p| p.parse::<Requirement>().ok()) {
        if !columns.iter().any(|c| c.wanted == wanted) {
            columns.push(Column { wanted });
        }
    }
    for platform in rows.iter().flat_map(|v| &v.subject.platforms) {
        if !columns.iter().any(|c| c.wanted.is_met_by(platform)) {
            columns.push(Column { wanted: build(platform) });
        }
    }
    columns.sort_by_cached_key(|c| order(c.wanted.platform()));
    columns
}

/// The platform up to the build of its version: the fourth part is the monthly patch level.
fn build(platform: &Platform) -> Requirement {
    let Some(version) = platform.os_version() else { return platform.clone().into() };
    let build: Vec<&str> = version.split('.').take(3).collect();
    let kind = match platform.variant() {
        Some(variant) => format!("{}/{}/{variant}", platform.os(), platform.architecture()),
        None => format!("{}/{}", platform.os(), platform.architecture()),
    };
    format!("{kind}:{}", build.join(".")).parse().unwrap_or_else(|_| platform.clone().into())
}

fn order(platform: &Platform) -> (bool, String, usize, String, String) {
    const USUAL: [&str; 4] = ["amd64", "arm64", "arm", "386"];
    let architecture = platform.architecture();
    let rank = USUAL.iter().position(|a| *a == architecture).unwrap_or(USUAL.len());
    // Newer variants of 32-bit ARM first; they are what is asked for.
    let variant = match (architecture, platform.variant()) {
        ("arm", Some("v8")) => "0",
        ("arm", Some("v7")) => "1",
        ("arm", Some("v6")) => "2",
        ("arm", Some("v5")) => "3",
        (_, variant) => variant.unwrap_or(""),
    };
    let version = platform.os_version().unwrap_or_default().to_owned();
    let os = platform.os();
    (os != "linux", os.to_owned(), rank, architecture.to_owned(), format!("{variant} {version}"))
}
