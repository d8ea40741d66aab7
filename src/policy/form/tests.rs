//! Forms by example, and against semver.

use super::*;
use proptest::prelude::*;

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

fn matches(form: &str, text: &str) -> bool {
    Form::parse(form).unwrap().captures(&tag(text)).is_some()
}

const VERSION: &str = "{major}.{minor}.{patch}";

#[test]
fn v01_v18_version_forms() {
    for (text, good) in [
        ("1.2.3", true),
        ("0.0.0", true),
        ("99999999999999999999.0.0", true),
        ("01.2.3", false),
        ("1.02.3", false),
        ("v1.2.3", false),
        ("1.2.3.4", false),
        ("1.2.3-rc.1", false),
        ("1.2", false),
        ("2024.06.15", false),
        ("2026.3.0", true),
    ] {
        assert_eq!(matches(VERSION, text), good, "{text}");
    }
}

#[test]
fn v15_v16_prerelease_forms_and_platforms_win() {
    let form = "{major}.{minor}.{patch}-{prerelease}";
    for (text, good) in [
        ("1.2.3-rc.1", true),
        ("1.2.3-0a", true),
        ("1.2.3--1", true),
        ("1.2.3-", false),
        ("1.2.3-rc..1", false),
        ("1.2.3-01", false),
        ("1.2.3-linux-arm32v7", false),
        ("1.2.3-amd64", false),
    ] {
        assert_eq!(matches(form, text), good, "{text}");
    }
    let platform = Form::parse("{major}.{minor}.{patch}-{platform}").unwrap();
    let captures = platform.captures(&tag("1.2.3-linux-arm32v7")).unwrap();
    assert_eq!(captures.platform().unwrap().to_string(), "linux/arm/v7");
    assert!(platform.captures(&tag("1.2.3-rc.1")).is_none());
}

#[test]
fn other_placeholders() {
    for (form, text, good) in [
        ("{date}", "20240615", true),
        ("{date}", "20240230", false),
        ("{date}.{build}", "20240615.1", true),
        ("sha-{hex}", "sha-deadbeef", true),
        ("sha-{hex}", "sha-DEADBEEF", false),
        ("{major}.{minor}-{variant:alpine|slim}", "1.2-alpine", true),
        ("{major}.{minor}-{variant:alpine|slim}", "1.2-debian", false),
        ("{word}-{any}", "feature-x.y-z", true),
        ("latest", "Latest", false),
        ("{major}.{minor}.{patch}-{os}-{arch}", "1.2.3-linux-arm32v7", true),
    ] {
        assert_eq!(matches(form, text), good, "{form} {text}");
    }
}

#[test]
fn faults_say_what_would_be_right() {
    for (form, message, help) in [
        ("{minr}", "unknown placeholder `{minr}`", "did you mean `{minor}`?"),
        ("{major", "the brace is not closed", "write `{major}`"),
        ("{major}+{build}", "`+` never occurs in a tag", "tags consist"),
        ("{major}.{major}", "`{major}` occurs twice", "once"),
    ] {
        let error = Form::parse(form).unwrap_err();
        assert_eq!(error.message, message);
        assert!(error.help.unwrap().contains(help));
    }
    assert!(Form::regex("(?<major>[0-9]+").is_err());
    assert!(Form::regex("((a{1000}){1000}){10}").is_err());
}

#[test]
fn ranks_follow_semver_precedence() {
    let form = Form::parse("{major}.{minor}.{patch}").unwrap();
    let pre = Form::parse("{major}.{minor}.{patch}-{prerelease}").unwrap();
    let rank = |text: &str| form.captures(&tag(text)).or_else(|| pre.captures(&tag(text))).unwrap().rank();
    let ordered = [
        "0.9.99",
        "1.0.0-alpha",
        "1.0.0-alpha.1",
        "1.0.0-alpha.beta",
        "1.0.0-beta",
        "1.0.0-beta.2",
        "1.0.0-beta.11",
        "1.0.0-rc.1",
        "1.0.0",
        "1.0.9",
        "1.0.10",
        "2.0.0",
        "10.0.0",
        "99999999999999999999.0.0",
        "100000000000000000000.0.0",
    ];
    for pair in ordered.windows(2) {
        assert!(rank(pair[0]) < rank(pair[1]), "{} < {}", pair[0], pair[1]);
    }
}

#[test]
fn a_regular_expression_captures_what_its_names_mean() {
    let form = Form::regex("v?(?<major>[0-9]+)(\\.(?<minor>[0-9]+))?-(?<platform>[a-z0-9-]+)").unwrap();
    let captures = form.captures(&tag("v007-linux-amd64")).unwrap();
    let told: Vec<_> = captures.iter().map(|(name, value)| format!("{name} {}", value.text())).collect();
    assert_eq!(told, ["major 7", "platform linux/amd64"]);
    assert_eq!(form.captures(&tag("000.1-amd64")).unwrap().get("major"), Some(Captured::Integer("0")));
    assert!(form.captures(&tag("7-alpine")).is_none(), "no platform");
    let names: Vec<Arc<str>> = ["major", "minor"].map(Into::into).to_vec();
    let group = |text: &str| form.captures(&tag(text)).unwrap().group(&names);
    assert_eq!(group("7-amd64"), group("v007-arm64"));
    assert_ne!(group("7-amd64"), group("7.0-amd64"));
}

#[test]
fn t40_matching_is_bounded_for_any_form() {
    let form = Form::parse("{a:x|xx}{b:x|xx}{c:x|xx}{d:x|xx}{word}{e:x|xx}{any}{f:x|xx}{hex}").unwrap();
    let text = "x".repeat(128);
    assert!(form.captures(&tag(&text)).is_none());
}

proptest! {
    #[test]
    fn ranks_agree_with_the_semver_crate_of_reference(
        a in (0u64..20, 0u64..20, 0u64..20, "(|[a-z]{1,3}|[0-9a-z-]{1,3}\\.[1-9][0-9]?)"),
        b in (0u64..20, 0u64..20, 0u64..20, "(|[a-z]{1,3}|[0-9a-z-]{1,3}\\.[1-9][0-9]?)"),
    ) {
        let text = |v: &(u64, u64, u64, String)| if v.3.is_empty() { format!("{}.{}.{}", v.0, v.1, v.2) } else { format!("{}.{}.{}-{}", v.0, v.1, v.2, v.3) };
        let forms = [Form::parse("{major}.{minor}.{patch}").unwrap(), Form::parse("{major}.{minor}.{patch}-{prerelease}").unwrap()];
        let rank = |t: &str| t.parse::<Tag>().ok().and_then(|t| forms.iter().find_map(|f| f.captures(&t))).map(|c| c.rank());
        if let (Some(ra), Some(rb), Ok(sa), Ok(sb)) = (rank(&text(&a)), rank(&text(&b)), semver::Version::parse(&text(&a)), semver::Version::parse(&text(&b))) {
            prop_assert_eq!(ra.cmp(&rb), sa.cmp_precedence(&sb));
        }
    }

    #[test]
    fn an_element_that_ends_in_one_place_only_ends_nowhere_else(
        form in "((\\{(major|minor|patch|prerelease|platform|os|arch|hex|date|word|any|x:a\\|ab)\\})|[.a1_-]){1,6}",
        text in "([0-9]{1,3}|[a-f]{1,3}|rc|ab|20240615|linux|amd64|[._-]){1,7}",
    ) {
        if let (Ok(form), Ok(tag)) = (Form::parse(&form), text.parse::<Tag>()) {
            let mut thorough = form.clone();
            if let Matcher::Elements(elements) = &mut thorough.matcher {
                for element in elements {
                    if let Element::Capture { is_certain, .. } = element {
                        *is_certain = false;
                    }
                }
            }
            let told = |form: &Form| {
                let captures = form.captures(&tag)?;
                let captured: Vec<_> = captures.iter().map(|(name, value)| format!("{name} {value:?}")).collect();
                Some((captured, captures.rank()))
            };
            prop_assert_eq!(told(&form), told(&thorough));
        }
    }

    #[test]
    fn t08_no_form_and_no_tag_panics(form in "\\PC{0,40}|(\\{(major|minor|any|word|hex|platform|x:a\\|b)\\}|[.a-z-]){0,8}", text in "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}") {
        if let (Ok(form), Ok(tag)) = (Form::parse(&form), text.parse::<Tag>()) {
            let _ = form.captures(&tag);
            let _ = form.reach(&text);
            for sample in form.samples() {
                if let Ok(sample) = sample.parse::<Tag>() { let _ = form.captures(&sample); }
            }
        }
        let _ = Form::regex(&text);
    }
}
