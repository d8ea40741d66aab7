//! Verdicts built by hand, as the judge would give them.

use jiff::{SignedDuration, Timestamp};

use crate::history::Origin;
use crate::image::{Digest, Platform, Repository};
use crate::policy::{
    Finding, Kind, NotEvaluated, Outcome, PolicyLocation, Reason, Rule, Severity, State, Subject, Verdict,
};
use crate::report::{Problem, Report};

pub const TIER1: [&str; 3] = ["linux/amd64", "linux/arm64", "linux/arm/v7"];

pub fn now() -> Timestamp {
    "2026-11-22T10:00:00Z".parse().unwrap()
}

pub fn repository() -> Repository {
    "contoso.azurecr.io/iot/sensor".parse().unwrap()
}

/// A digest whose short form is the one of the published example.
pub fn digest(start: &str) -> Digest {
    format!("sha256:{start:0<64}").parse().unwrap()
}

pub fn platforms(list: &[&str]) -> Vec<Platform> {
    list.iter().map(|p| p.parse().unwrap()).collect()
}

pub fn verdict(tag: &str, class: &str, list: &[&str], findings: Vec<Finding>) -> Verdict {
    Verdict {
        repository: repository(),
        subject: Subject {
            tag: Some(tag.parse().unwrap()),
            digest: Some(digest("9f3c1e04aa6b")),
            kind: Some(Kind::Index),
            platforms: platforms(list),
        },
        policy: "iot-edge-module".into(),
        policy_hash: "sha256:0f0f".into(),
        class: Some(class.into()),
        at_version: None,
        outcome: Verdict::outcome_of(&findings, false),
        origin: Origin::Check,
        judged_at: now(),
        preview: false,
        findings,
        not_evaluated: Vec::new(),
        evaluated: vec![Rule::Index, Rule::Platforms, Rule::Intact],
    }
}

pub fn finding(rule: Rule, reason: Reason, severity: Severity, message: &str, advice: &str) -> Finding {
    Finding {
        rule,
        reason,
        severity,
        state: State::Firing,
        message: message.into(),
        advice: advice.into(),
        expected: Vec::new(),
        actual: Vec::new(),
        wait: SignedDuration::ZERO,
        since: now(),
        note: None,
        source: None,
    }
}

pub fn missing_arm(advice: &str) -> Finding {
    Finding {
        expected: TIER1.map(str::to_owned).to_vec(),
        actual: TIER1[..2].iter().map(|p| (*p).to_owned()).collect(),
        source: Some(PolicyLocation { file: "policies/iot.yaml".into(), line: 14, column: 9 }.into()),
        ..finding(
            Rule::Platforms,
            Reason::MissingPlatform,
            Severity::Critical,
            "linux/arm/v7 is required by platform set iot-edge-tier1 and is not in the index",
            advice,
        )
    }
}

pub fn unrecorded(rule: Rule) -> NotEvaluated {
    NotEvaluated { rule, why: "no record of this tag".into() }
}

/// The example of the published surface.
pub fn example() -> Report {
    let advice = "Publish 1.0.2 with all of linux/amd64, linux/arm64, linux/arm/v7: 1.0.1 must not change.";
    let mut version = verdict("1.0.1", "version", &TIER1[..2], vec![missing_arm(advice)]);
    version.not_evaluated = vec![unrecorded(Rule::Immutable)];
    let mut latest = verdict("latest", "latest", &TIER1[..2], vec![missing_arm(advice)]);
    latest.at_version = Some("1.0.1".parse().unwrap());
    latest.not_evaluated = vec![unrecorded(Rule::Immutable)];
    Report::new(vec![version, latest], now())
}

pub fn all_pass() -> Report {
    let mut a = verdict("1.0.1", "version", &TIER1, vec![]);
    a.not_evaluated = vec![unrecorded(Rule::Immutable), unrecorded(Rule::Present)];
    let same = "the index lists the very same images as 1.0.1";
    let same = finding(Rule::Follows, Reason::SameImages, Severity::Info, same, "Point latest to the digest of 1.0.1.");
    let b = verdict("latest", "latest", &TIER1, vec![same]);
    let mut other = verdict("3.2.1", "version", &TIER1, vec![]);
    other.repository = "contoso.azurecr.io/iot/gateway".parse().unwrap();
    let mut ignored = verdict("sha256-abc.sig", "version", &[], vec![]);
    ignored.repository = other.repository.clone();
    ignored.class = None;
    ignored.outcome = Outcome::Ignored;
    ignored.evaluated = vec![];
    Report::new(vec![a, b, other, ignored], now())
}

/// Everything at once: errors, pending, resolved, an artifact, Windows, a class without a tag, a problem.
pub fn mixed() -> Report {
    let registry = "the registry answered 503 three times";
    let retry = "It is tried again; `tidewaiter doctor` checks the registry.";
    let mut error = verdict(
        "1.3.0",
        "version",
        &[],
        vec![finding(Rule::Intact, Reason::RegistryError, Severity::Critical, registry, retry)],
    );
    error.subject.kind = None;
    let lagging = finding(
        Rule::Follows,
        Reason::Lagging,
        Severity::Warning,
        "latest is at 1.2.0, the highest version is 1.3.0",
        "Point latest to 1.3.0.",
    );
    let mut latest = verdict("latest", "latest", &TIER1, vec![lagging]);
    latest.at_version = Some("1.2.0".parse().unwrap());
    let untagged = "linux/arm64 (sha256:77aa77aa77aa) has no tag of its own";
    let untagged = Finding {
        state: State::Pending,
        wait: SignedDuration::from_mins(15),
        note: Some("agreed with the publishing team".into()),
        ..finding(Rule::MembersTagged, Reason::UntaggedMember, Severity::Warning, untagged, "Tag it 1.2.0-arm64.")
    };
    let windows = ["linux/amd64", "linux/arm64", "linux/arm/v7", "windows/amd64:10.0.17763.1098"];
    let version = verdict("1.2.0", "version", &windows, vec![untagged]);
    let kind = "the tag leads to a Helm chart, an image is required";
    let kind = finding(Rule::Kind, Reason::WrongKind, Severity::Critical, kind, "Push the chart to charts/sensor.");
    let mut chart = verdict("1.1.0", "version", &[], vec![kind]);
    chart.subject.kind = Some(Kind::Artifact);
    chart.subject.digest = Some(digest("00c4a7"));
    chart.not_evaluated = vec![NotEvaluated { rule: Rule::Platforms, why: "the tag leads to an artifact".into() }];
    let restored = Finding {
        state: State::Resolved,
        ..finding(
            Rule::Immutable,
            Reason::Restored,
            Severity::Critical,
            "the tag had moved to sha256:bbbb and points to its first digest again",
            "Find out what moved it.",
        )
    };
    let undone = verdict("1.0.0", "version", &TIER1, vec![restored]);
    let expected = finding(
        Rule::Expected,
        Reason::ExpectedMissing,
        Severity::Warning,
        "the repository has no tag of class rolling",
        "Push one of {major}.{minor}.",
    );
    let mut tagless = verdict("x", "rolling", &[], vec![expected]);
    tagless.subject = Subject::default();
    let mut report = Report::new(vec![error, latest, version, chart, undone, tagless], now());
    report.problems = vec![Problem {
        target: "contoso.azurecr.io/iot/broken".into(),
        message: "the registry refuses to list the tags: 401 Unauthorized".into(),
    }];
    report.ungoverned = vec!["contoso.azurecr.io/web/shop".parse().unwrap()];
    report
}

/// 300 tags, of which every hundredth lacks a platform and 40 lag with a cause of their own.
pub fn many() -> Report {
    let verdicts = (0..300).map(|n| {
        let tag = format!("1.{}.{}", n / 10, n % 10);
        let mut findings = Vec::new();
        if n % 100 == 0 {
            let next = format!("Publish 1.{}.{} with linux/arm/v7: {tag} must not change.", n / 10, n % 10 + 1);
            findings.push(missing_arm(&next));
        }
        if (200..240).contains(&n) {
            findings.push(finding(
                Rule::Immutable,
                Reason::TagMoved,
                Severity::Critical,
                "the tag was moved",
                "Publish a new version and point the tag back.",
            ));
        }
        let list = if n % 100 == 0 { &TIER1[..2] } else { &TIER1[..] };
        let mut verdict = verdict(&tag, "version", list, findings);
        verdict.subject.digest = Some(Digest::of(tag.as_bytes()));
        verdict
    });
    Report::new(verdicts.collect(), now())
}

/// Text as an attacker would like to have it in names, annotations and remote errors.
pub const HOSTILE: [&str; 16] = [
    "\n::error::owned",
    "a ::set-env name=X::y and then a rather long line that wraps so that ::add-path::/tmp comes first",
    "##[error]owned ##vso[task.setvariable variable=a]b",
    "\u{1b}[2J\u{1b}]0;title\u{7}",
    "\u{202e}gnp.exe\u{202c}",
    "\u{200b}\u{feff}\u{2066}x\u{2069}",
    "a\r\nb\tc\u{85}\u{2028}d",
    "<script>alert(1)</script>",
    "[click](https://evil.example) ![x](http://evil.example/x.png)",
    "@everyone <!channel> <@U1> user@evil.example www.evil.example",
    "`code` | **bold** | _it_ ~~s~~ # h",
    "]]> <![CDATA[ &amp; \u{0} \u{fffe}",
    "50% 25%0A::warning::x",
    "{0} {{x}} $(id) ${HOME} %s",
    "--- - a: b # !!python/object",
    "]x;code=owned]",
];

pub fn hostile() -> Report {
    let verdicts = HOSTILE.iter().enumerate().map(|(n, text)| {
        let mut found = missing_arm(text);
        found.reason = Reason::LyingIndex;
        found.rule = Rule::Intact;
        found.message = (*text).into();
        found.actual = vec![(*text).into()];
        found.note = Some((*text).into());
        found.source = Some(PolicyLocation { file: (*text).into(), line: 1, column: 1 }.into());
        let mut verdict = verdict(&format!("1.0.{n}"), "version", &TIER1, vec![found]);
        verdict.class = Some((*text).into());
        verdict.not_evaluated = vec![NotEvaluated { rule: Rule::Immutable, why: (*text).into() }];
        verdict
    });
    let mut report = Report::new(verdicts.collect(), now());
    report.problems = HOSTILE.iter().map(|t| Problem { target: (*t).into(), message: (*t).into() }).collect();
    report
}
