//! What people read: text, listings, the pages of reasons.

use super::fixtures::*;
use super::*;

/// The example of interfaces.md, to the character.
const EXAMPLE: &str = "\
contoso.azurecr.io/iot/sensor                                  policy iot-edge-module
  tag      digest         amd64  arm64  arm/v7   class
  1.0.1    9f3c1e04aa6b     ✓      ✓      ✗      version
  latest   9f3c1e04aa6b     ✓      ✓      ✗      latest, at 1.0.1

  ✗ 1.0.1, latest   platforms   critical   linux/arm/v7 is missing
      Publish 1.0.2 with all of linux/amd64, linux/arm64, linux/arm/v7: 1.0.1 must not change.
  · not evaluated: immutable (no record of these tags)

2 tags, 1 policy: 2 violations                                 tidewaiter policy explain missing-platform
";

#[test]
fn the_published_example_is_met() {
    assert_eq!(example().render(Format::Text, &Options::default()), EXAMPLE);
}

#[test]
fn text_reads_as_the_golden_files_say() {
    for (name, report) in
        [("example", example()), ("all-pass", all_pass()), ("mixed", mixed()), ("many", many()), ("hostile", hostile())]
    {
        golden(&format!("{name}.txt"), &report.render(Format::Text, &Options::default()));
        golden(&format!("{name}-60.txt"), &report.render(Format::Text, &plain(60)));
    }
    let ascii = Options { unicode: false, ..Options::default() };
    golden("mixed-ascii.txt", &mixed().render(Format::Text, &ascii));
    golden("empty.txt", &Report::new(vec![], now()).render(Format::Text, &Options::default()));
}

#[test]
fn colour_adds_nothing_but_colour() {
    let coloured = mixed().render(Format::Text, &Options { colour: true, ..Options::default() });
    let mut stripped = String::new();
    for (n, part) in coloured.split("\u{1b}[").enumerate() {
        stripped += if n == 0 { part } else { part.split_once('m').unwrap().1 };
    }
    assert!(coloured.contains("\u{1b}[1;31m✗"));
    assert_eq!(stripped, mixed().render(Format::Text, &Options::default()));
}

#[test]
fn text_keeps_to_the_width_from_sixty_columns() {
    for report in [example(), all_pass(), mixed(), many()] {
        for width in 60..160 {
            for line in report.render(Format::Text, &plain(width)).lines() {
                assert!(line.chars().count() <= width, "{width}: {line}");
                assert_eq!(line, line.trim_end());
            }
        }
    }
    assert_eq!(mixed().render(Format::Text, &plain(1)), mixed().render(Format::Text, &plain(WIDTH_MIN)));
}

#[test]
fn ascii_is_enough() {
    let ascii = Options { unicode: false, ..Options::default() };
    for report in [example(), all_pass(), mixed(), many(), hostile()] {
        assert!(report.render(Format::Text, &ascii).is_ascii());
    }
}

#[test]
fn many_tags_leave_the_findings_and_the_sum_on_the_screen() {
    let text = many().render(Format::Text, &Options::default());
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() < 80, "{}", lines.len());
    assert!(lines[lines.len() - 1].starts_with("300 tags, 1 policy: 42 violations, 258 pass"));
    assert_eq!(text.matches("linux/arm/v7 is missing").count(), 1);
}

#[test]
fn pages_of_reasons() {
    let page = explain_text(Reason::MissingPlatform, &Options::default());
    golden("explain-missing-platform.txt", &page);
    golden("explain-registry-error.txt", &explain_text(Reason::RegistryError, &plain(60)));
    let document = reasons_markdown();
    for reason in Reason::ALL {
        assert_eq!(document.matches(&format!("### `{reason}`\n")).count(), 1, "{reason}");
    }
}
