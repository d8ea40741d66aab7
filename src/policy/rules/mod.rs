//! The requirements, one function each, by what they look at.

mod history;
mod image;
mod relation;

use super::judge::{Case, Facts, Gather, Met};
use super::observation::{Cause, CauseKind};
use super::verdict::Rule;
use super::view::Shape;
use crate::image::Tag;

pub(super) use history::{immutable, present};

/// Evaluates one requirement that the class asks for.
pub(super) fn evaluate<'a>(case: &mut Case<'a>, gather: &mut Gather<'a>, rule: Rule, facts: &Facts<'a>) -> Met {
    let require = &facts.class.require;
    match rule {
        Rule::Kind => require.kind.as_ref().map(|(s, wanted)| image::kind(case, s, *wanted, facts)),
        Rule::Index => require.index.as_ref().map(|(s, rule)| image::index(case, gather, s, *rule, facts)),
        Rule::Platforms => require.platforms.as_ref().map(|(s, rule)| image::platforms(case, gather, s, rule, facts)),
        Rule::KeepsPlatforms => {
            require.keeps_platforms.as_ref().map(|(s, keeps)| image::keeps_platforms(case, gather, s, keeps, facts))
        }
        Rule::Intact => require.intact.as_ref().map(|s| image::intact(case, gather, s, facts)),
        Rule::Config => require.config.as_ref().map(|(s, schema)| image::config(case, gather, s, schema, facts)),
        Rule::Manifest => require.manifest.as_ref().map(|(s, schema)| image::manifest(case, gather, s, schema, facts)),
        Rule::Expect => require.expect.as_ref().map(|(s, list)| image::expect(case, gather, s, list, facts)),
        Rule::Immutable => Some(immutable(case, gather, facts.class, facts.record)),
        Rule::Present => require.present.as_ref().map(|s| present(case, s, facts.record)),
        Rule::Locked => require.locked.as_ref().map(|s| history::locked(case, gather, s, facts)),
        Rule::Follows => require.follows.as_ref().map(|(s, rule)| relation::follows(case, gather, s, rule, facts)),
        Rule::MemberOf => {
            require.member_of.as_ref().map(|(s, relation)| relation::member_of(case, gather, s, relation, facts))
        }
        Rule::MembersTagged => {
            require.members_tagged.as_ref().map(|(s, by)| relation::members_tagged(case, gather, s, by.as_ref(), facts))
        }
        // These belong to what has no class, or to the class itself.
        Rule::Form | Rule::Expected => None,
    }
    .unwrap_or(Met::Yes)
}

/// The tag that a publisher would push after a version of three numbers: the patch number plus one, of any length.
fn next_version(version: &Tag) -> Option<String> {
    let parts: Vec<&str> = version.as_str().split('.').collect();
    let [major, minor, patch] = parts.as_slice() else { return None };
    let digits = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    [major, minor, patch].into_iter().all(digits).then(|| format!("{major}.{minor}.{}", plus_one(patch)))
}

/// One more than a decimal number of any length.
fn plus_one(digits: &str) -> String {
    let mut out: Vec<u8> = digits.bytes().collect();
    for digit in out.iter_mut().rev() {
        if *digit == b'9' {
            *digit = b'0';
        } else {
            *digit += 1;
            return String::from_utf8_lossy(&out).into_owned();
        }
    }
    format!("1{}", String::from_utf8_lossy(&out))
}

/// The obstacle to judging the image, where what the tag leads to is unreadable: told by the first requirement
/// that needs it.
fn obstacle(shape: &Shape) -> Option<Result<(super::reason::Reason, String), Cause>> {
    match shape {
        Shape::Legacy => {
            Some(Ok((super::reason::Reason::LegacyFormat, "the manifest has the format Docker schema 1".to_owned())))
        }
        Shape::Malformed(reason, text) => Some(Ok((*reason, text.clone()))),
        Shape::Undetermined(cause) => Some(Err(cause.clone())),
        Shape::Absent => Some(Err(Cause {
            kind: CauseKind::EvidenceGone,
            text: "the manifest that the tag leads to is not in the registry".to_owned(),
        })),
        Shape::Index | Shape::Image | Shape::Artifact { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_version_of_any_length() {
        for (patch, next) in
            [("0", "1"), ("9", "10"), ("99", "100"), ("19", "20"), ("99999999999999999999", "100000000000000000000")]
        {
            assert_eq!(plus_one(patch), next);
        }
        for (version, next) in [("1.0.1", Some("1.0.2")), ("1.0.1-amd64", None), ("1.0", None), ("1.0.x", None)] {
            assert_eq!(next_version(&version.parse().unwrap()).as_deref(), next);
        }
    }
}
