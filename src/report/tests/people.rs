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
