//! What is valid in a policy and probably not meant: warnings with place and hint. Pure; what day it is and which
//! repositories there are is handed in.

use jiff::{ToSpan, civil};

use super::compile::{strings, text};
use super::load::Document;
use super::scope::Glob;
use super::set::{Class, Mode, Policy, PolicySet};
use super::verdict::Rule;
use crate::document::{Fault, Node};
use crate::image::{PlatformRequirement, Repository, Tag};

/// How long before its end an exception is pointed out.
const NOTICE_DAYS: i32 = 7;

/// Everything that is probably not meant, by place. The documents are those that `set` was compiled from.
///
/// `known` are the repositories on record, where there is a record: a pattern that matches none of them may be a
/// slip. `today` decides which exceptions have ended.
pub fn lint(documents: &[Document], set: &PolicySet, known: Option<&[Repository]>, today: civil::Date) -> Vec<Fault> {
    let mut faults = Vec::new();
    for document in documents.iter().filter(|d| d.kind() == "TagPolicy") {
        let Some(policy) = set.policies().iter().find(|p| *p.name == *document.name()) else { continue };
        let Some(spec) = document.node.get("spec") else { continue };
        let mut linter = Linter { document, policy, faults: Vec::new() };
        linter.repositories(spec, known);
        linter.classes(spec);
        linter.exceptions(spec, today);
        linter.withdrawn(spec, today);
        linter.enforce(spec);
        linter.faults.sort_by_key(|f| f.span);
        faults.append(&mut linter.faults);
    }
    unknown_platforms(documents, &mut faults);
    unused_sets(documents, &mut faults);
    // By file and place, as people go through them.
    let file = |fault: &Fault| documents.iter().position(|d| d.source.name == fault.source.name);
    faults.sort_by_key(|fault| (file(fault), fault.span));
    faults
}

struct Linter<'a> {
    document: &'a Document,
    policy: &'a Policy,
    faults: Vec<Fault>,
}

/// Tags that a class can have, as different as its forms allow. Empty where a regular expression decides.
fn samples(class: &Class, form: usize) -> Vec<Tag> {
    let texts = class.forms[form].samples();
    texts.iter().filter_map(|t| t.parse().ok()).filter(|t| class.forms[form].captures(t).is_some()).collect()
}

impl Linter<'_> {
    fn warn(&mut self, node: &Node, code: &'static str, message: String, label: impl Into<String>) {
        self.faults.push(Fault::error(&self.document.source, node.span, code, message).label(label).warning());
    }

    fn repositories(&mut self, spec: &Node, known: Option<&[Repository]>) {
        let nodes = strings(spec.get("repositories"));
        for (n, node) in nodes.iter().enumerate() {
            let written = text(Some(node));
            let (excludes, pattern) = written.strip_prefix('!').map_or((false, written), |p| (true, p));
            let Ok(glob) = Glob::parse(pattern) else { continue };
            if !excludes {
                let later = |repository: &Repository| {
                    nodes[n + 1..].iter().rev().find(|node| {
                        let written = text(Some(node));
                        Glob::parse(written.trim_start_matches('!')).is_ok_and(|g| g.matches(repository))
                    })
                };
                let examples: Vec<Repository> =
                    ["x", "x/y"].iter().filter_map(|inner| example(pattern, inner).parse().ok()).collect();
                let shadows: Vec<_> = examples.iter().filter_map(later).collect();
                if let Some(shadow) = shadows.first()
                    && shadows.len() == examples.len()
                    && shadows.iter().all(|s| text(Some(s)).starts_with('!'))
                {
                    let message = format!("`{pattern}` is excluded again by `{}`", text(Some(shadow)));
                    self.warn(node, "shadowed-pattern", message, "a later entry wins: put this one after it");
                    continue;
                }
            }
            if let Some(known) = known
                && !known.iter().any(|repository| glob.matches(repository))
            {
                let message = format!("`{pattern}` matches none of the {} repositories on record", known.len());
                let label = if excludes {
                    "excludes nothing"
                } else {
                    "patterns are HOST/REPOSITORY; `*` is one segment, `**` any number"
                };
                self.warn(node, "pattern-without-match", message, label);
            }
        }
    }

    fn classes(&mut self, spec: &Node) {
        let policy = self.policy;
        let nodes = spec.get("classes").map(Node::items).unwrap_or_default();
        for (n, (class, node)) in policy.classes.iter().zip(nodes).enumerate() {
            for (f, form) in class.forms.iter().enumerate() {
                let written = strings(node.get("form")).get(f).copied().or(node.get("regex")).unwrap_or(node);
                let tags = samples(class, f);
                let winners: Vec<usize> = tags.iter().filter_map(|t| policy.membership(t)).map(|m| m.class).collect();
                if !tags.is_empty()
                    && winners.iter().all(|w| *w < n)
                    && let Some(winner) = winners.first()
                {
                    let message = format!("no tag of the form `{form}` comes to the class `{}`", class.name);
                    let label = format!("the class `{}` before it takes them all", policy.classes[*winner].name);
                    self.warn(written, "unreachable-class", message, label);
                }
                let follows =
                    class.require.follows.as_ref().and_then(|(_, rule)| Some((rule, rule.target.by_form.get(f)?)));
                if let Some((rule, pairing)) = follows
                    && pairing.shared.is_empty()
                    && !form.names().is_empty()
                {
                    let target = &policy.classes[rule.target.class];
                    let message = format!(
                        "`{form}` shares no capture with the class `{}`, so each such tag must be its highest tag of all",
                        target.name
                    );
                    self.warn(
                        written,
                        "no-shared-capture",
                        message,
                        "give both forms the same placeholders, if lines are meant",
                    );
                }
            }
            if self.is_idle(n) {
                let label = "require something of it, or leave it out";
                let message = format!("the class `{}` requires nothing, and nothing refers to it", class.name);
                self.warn(node.get("name").unwrap_or(node), "idle-class", message, label);
            }
        }
    }

    /// Whether a class makes no difference. Under `otherTags: deny`, to be there is enough; so it is where it keeps
    /// tags from a later class. A policy that requires nothing at all is there to observe.
    fn is_idle(&self, n: usize) -> bool {
        let policy = self.policy;
        let class = &policy.classes[n];
        let refers = |c: &Class| {
            let r = &c.require;
            let targets = [
                r.follows.as_ref().map(|(_, f)| f.target.class),
                r.member_of.as_ref().map(|(_, m)| m.class),
                r.members_tagged.as_ref().and_then(|(_, by)| by.as_ref()).map(|m| m.class),
            ];
            targets.contains(&Some(n))
        };
        let keeps_away = || {
            let mut tags = (0..class.forms.len()).flat_map(|f| samples(class, f));
            tags.any(|t| policy.classes[n + 1..].iter().any(|c| c.forms.iter().any(|f| f.captures(&t).is_some())))
        };
        class.require.rules().is_empty()
            && class.expected.is_none()
            && policy.other_tags.is_none()
            && policy.classes.iter().any(|c| !c.require.rules().is_empty() || c.expected.is_some())
            && !policy.classes.iter().any(refers)
            && !class.forms.iter().any(|f| f.samples().is_empty())
            && !keeps_away()
    }

    fn exceptions(&mut self, spec: &Node, today: civil::Date) {
        let asked: Vec<Rule> = self.policy.findable().into_iter().map(|(rule, _)| rule).collect();
        for item in spec.get("exceptions").map(Node::items).unwrap_or_default() {
            for rule in item.get("requirements").map(Node::items).unwrap_or_default() {
                if Rule::from_word(text(Some(rule))).is_some_and(|r| !asked.contains(&r)) {
                    let message = format!("no class requires `{}`", text(Some(rule)));
                    self.warn(rule, "idle-exception", message, "nothing to except");
                }
            }
            let Some(node) = item.get("until") else { continue };
            let Ok(until) = text(Some(node)).parse::<civil::Date>() else { continue };
            if until < today {
                self.warn(
                    node,
                    "expired-exception",
                    format!("the exception ended on {until}"),
                    "remove it, or give it another end and reason",
                );
            } else if today.checked_add(NOTICE_DAYS.days()).is_ok_and(|soon| until <= soon) {
                self.warn(
                    node,
                    "ending-exception",
                    format!("the exception ends on {until}"),
                    "what it covers fires the day after",
                );
            }
        }
    }

    fn withdrawn(&mut self, spec: &Node, today: civil::Date) {
        for class in spec.get("classes").map(Node::items).unwrap_or_default() {
            for item in class.at("/require/follows/withdrawn").map(Node::items).unwrap_or_default() {
                let Some(node) = item.get("until") else { continue };
                if text(Some(node)).parse::<civil::Date>().is_ok_and(|until| until < today) {
                    let message = format!(
                        "`{}` counts again: it was withdrawn until {}",
                        text(item.get("tag")),
                        text(Some(node))
                    );
                    self.warn(node, "expired-withdrawal", message, "remove it, or give it another end");
                }
            }
        }
    }

    fn enforce(&mut self, spec: &Node) {
        if self.policy.mode == Mode::Enforce {
            return;
        }
        let required = |class: &Node| class.get("require").map(Node::entries).unwrap_or_default().to_vec();
        let classes = spec.get("classes").map(Node::items).unwrap_or_default();
        for (_, requirement) in classes.iter().flat_map(required) {
            if let Some(enforce) = requirement.get("enforce").filter(|e| !strings(Some(e)).is_empty()) {
                let mode = match self.policy.mode {
                    Mode::Preview => "preview",
                    _ => "alert",
                };
                let message = format!("nothing is enforced under `mode: {mode}`");
                self.warn(enforce, "idle-enforce", message, "takes effect under `mode: enforce`");
            }
        }
    }
}

/// A repository that a pattern matches, with `inner` for what `**` stands for.
fn example(pattern: &str, inner: &str) -> String {
    let segments = pattern.split('/').enumerate().map(|(n, segment)| match (n, segment) {
        (0, "*" | "**") => "registry.example".to_owned(),
        (_, "**") => inner.to_owned(),
        (_, wild) => wild.replace('*', "x"),
    });
    let path = segments.collect::<Vec<_>>().join("/");
    // `**` alone is host and repository.
    if path.contains('/') { path } else { format!("{path}/{inner}") }
}

/// Platforms that are asked for and that nobody builds for.
fn unknown_platforms(documents: &[Document], faults: &mut Vec<Fault>) {
    let all = |node: &Node| {
        [Some(node), node.get("all"), node.get("any"), node.get("only")]
            .into_iter()
            .flatten()
            .flat_map(Node::items)
            .cloned()
            .collect::<Vec<_>>()
    };
    for document in documents {
        let revisions = document.node.at("/spec/revisions").map(Node::items).unwrap_or_default();
        let classes = document.node.at("/spec/classes").map(Node::items).unwrap_or_default();
        let of_sets = revisions.iter().filter_map(|revision| revision.get("platforms"));
        let of_classes = classes.iter().filter_map(|class| class.at("/require/platforms"));
        for node in of_sets.chain(of_classes).flat_map(all) {
            let Ok(asked) = text(Some(&node)).parse::<PlatformRequirement>() else { continue };
            if asked.platform().is_built_for() {
                continue;
            }
            let label = asked.platform().nearest_built_for().map_or_else(
                || "operating system and architecture as Go names them".to_owned(),
                |near| format!("did you mean `{near}`?"),
            );
            let message = format!("nobody builds for `{asked}`, so no image will have it");
            faults.push(Fault::error(&document.source, node.span, "unknown-platform", message).label(label).warning());
        }
    }
}

fn unused_sets(documents: &[Document], faults: &mut Vec<Fault>) {
    for set in documents.iter().filter(|d| d.kind() == "PlatformSet") {
        let uses = |policy: &&Document| {
            let classes = policy.node.at("/spec/classes").map(Node::items).unwrap_or_default();
            classes.iter().filter_map(|c| c.at("/require/platforms")).any(|platforms| {
                [Some(platforms), platforms.get("all"), platforms.get("any"), platforms.get("only")]
                    .into_iter()
                    .flatten()
                    .any(|n| n.as_str() == Some(set.name()))
            })
        };
        if !documents.iter().filter(|d| d.kind() == "TagPolicy").any(|d| uses(&d)) {
            let span = set.node.at("/metadata/name").map_or(set.node.span, |n| n.span);
            let message = format!("no policy uses the platform set `{}`", set.name());
            faults.push(
                Fault::error(&set.source, span, "unused-platform-set", message)
                    .label("remove it, or name it in `platforms`")
                    .warning(),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{compile, documents, templates};
    use super::*;
    use crate::document::{Source, render};

    fn linted(text: &str, known: Option<&[&str]>) -> Vec<String> {
        let read = documents(&Source::new("policy.yaml", text)).unwrap_or_else(|f| panic!("{}", render(&f, false)));
        let set = compile(&read, &|_: &Source, _: &str| Err(String::new()))
            .unwrap_or_else(|f| panic!("{}", render(&f, false)));
        let known: Option<Vec<Repository>> = known.map(|k| k.iter().map(|r| r.parse().unwrap()).collect());
        let faults = lint(&read, &set, known.as_deref(), civil::date(2026, 6, 10));
        faults
            .iter()
            .map(|f| format!("{}:{} {}: {}", f.position().line, f.position().column, f.code, f.message))
            .collect()
    }

    #[test]
    fn what_is_probably_not_meant_is_pointed_out() {
        let text = r#"apiVersion: tidewaiter.dev/v1
kind: TagPolicy
metadata: {name: slips}
spec:
  repositories: ["a.example/team/**", "!a.example/**", "b.example/**", "c.example/*", "!b.example/old/*"]
  classes:
    - {name: anything, form: ["{any}-x", "{major}.{minor}.{patch}"], require: {immutable: {enforce: [lock]}}}
    - {name: version, form: "{major}.{minor}.{patch}", require: {intact: true}}
    - {name: stream, form: "stream-{word}", require: {follows: {class: anything, withdrawn: [{tag: 1.0.0, reason: bad, until: 2026-06-09}]}}}
    - {name: idle, form: "idle-{word}"}
  exceptions:
    - {tags: ["1.*"], requirements: [immutable, locked], until: 2026-06-09, reason: old}
    - {tags: ["2.*"], requirements: [immutable], until: 2026-06-17, reason: older}
    - {tags: ["3.*"], requirements: [immutable], until: 2026-06-18, reason: oldest}
---
apiVersion: tidewaiter.dev/v1
kind: PlatformSet
metadata: {name: nobody}
spec: {revisions: [{from: 2020-01-01, platforms: [linux/amd64]}]}
"#;
        let told = linted(text, Some(&["b.example/app"]));
        let codes: Vec<&str> = told.iter().map(|t| t.split(": ").next().unwrap()).collect();
        assert_eq!(
            codes,
            [
                "5:18 shadowed-pattern",
                "5:39 pattern-without-match",
                "5:72 pattern-without-match",
                "5:87 pattern-without-match",
                "7:101 idle-enforce",
                "8:29 unreachable-class",
                "9:28 no-shared-capture",
                "9:127 expired-withdrawal",
                "10:14 idle-class",
                "12:49 idle-exception",
                "12:65 expired-exception",
                "13:57 ending-exception",
                "18:18 unused-platform-set",
            ],
            "{told:#?}"
        );
    }

    #[test]
    fn platforms_that_nobody_builds_for_are_pointed_out() {
        let text = r#"apiVersion: tidewaiter.dev/v1
kind: TagPolicy
metadata: {name: slips}
spec:
  repositories: ["a.example/**"]
  classes:
    - {name: version, form: "{major}", require: {platforms: {all: [linux/amd64, linus/arm64], any: tier1}}}
---
apiVersion: tidewaiter.dev/v1
kind: PlatformSet
metadata: {name: tier1}
spec: {revisions: [{from: 2020-01-01, platforms: [linux/arm/v7, "windows/s390x"]}]}
"#;
        assert_eq!(
            linted(text, None),
            [
                "7:81 unknown-platform: nobody builds for `linus/arm64`, so no image will have it",
                "12:65 unknown-platform: nobody builds for `windows/s390x`, so no image will have it"
            ]
        );
        // An architecture that there is not cannot be asked for at all.
        let read = documents(&Source::new("policy.yaml", text.replace("linus/arm64", "linux/amd46"))).unwrap();
        let faults = compile(&read, &|_: &Source, _: &str| Err(String::new())).unwrap_err();
        assert_eq!(
            faults[0].to_string(),
            "policy.yaml:7:81: error: no runtime looks for `linux/amd46`: did you mean `linux/amd64`?"
        );
    }

    #[test]
    fn the_shipped_policies_give_no_cause() {
        for (_, text) in templates() {
            assert_eq!(linted(text, None), Vec::<String>::new());
        }
    }
}
