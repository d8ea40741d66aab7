//! `tidewaiter policy explain`: what the policies ask of a reference, with the result of each requirement at its
//! registry; or what a reason means. It judges as `check` does, and leaves it to `check` to fail a build.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::ValueHint;

use super::check;
use super::clients::{Clients, Reach};
use super::fail::{Failure, configuration};
use super::judging::record;
use super::policies::{self, Loaded};
use super::targets::reference;
use super::terminal::Terminal;
use crate::alert::Topic;
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::image::{Reference, Tag};
use crate::policy::{
    Class, Finding, Mode, PlatformRule, PlatformSet, Policy, Reason, Rule, Setting, Verdict, is_digest_tag,
};
use crate::report::{Options, explain_text, page_text, requirement_text, visible};

const AFTER_HELP: &str = "\
Examples:
  tidewaiter policy explain contoso.azurecr.io/iot/sensor:1.0.1
  tidewaiter policy explain contoso.azurecr.io/iot/sensor:2.0.0 --policy policies/ --offline
  tidewaiter policy explain missing-platform

The exit code is 0 whatever the result is: `tidewaiter check` is what fails a build.";

/// Say which class and requirements meet a reference, and what each comes to at the registry; or what a reason code means
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// HOST/REPO:TAG; or a reason such as missing-platform, or the topic of a trouble such as dead-letter
    #[arg(value_name = "REFERENCE|REASON")]
    what: String,
    /// Explain by this policy file or folder; may be repeated
    #[arg(short, long = "policy", value_name = "PATH", value_hint = ValueHint::AnyPath)]
    policies: Vec<PathBuf>,
    /// Take policies, credentials, registries' settings and the record of tags from this configuration
    #[arg(short, long, value_name = "FILE", env = "TIDEWAITER_CONFIG", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// Ask no registry: only say what is asked of the tag
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    reach: Reach,
}

pub(super) async fn run(args: Args, terminal: &Terminal) -> Result<u8, Failure> {
    let options = terminal.listing();
    if let Some(reason) = Reason::ALL.iter().find(|r| r.as_str() == args.what) {
        terminal.print(&explain_text(*reason, &options))?;
        return Ok(0);
    }
    if let Some(topic) = Topic::from_code(&args.what) {
        let page = topic.page();
        let parts = [
            ("What is wrong", page.wrong),
            ("Why it matters", page.why),
            ("What to do", page.fix),
            ("When it is over", page.over),
        ];
        let kind = format!("trouble of the daemon itself, {}", topic.severity());
        terminal.print(&page_text(topic.as_str(), &kind, &parts, &options))?;
        return Ok(0);
    }
    if !args.what.contains('/') {
        return Err(unknown_reason(&args.what));
    }
    let reference = reference(&args.what)?;
    let Some(tag) = &reference.tag else {
        return Err(Failure::say(format!("`{reference}` has no tag, and policies are about tags"))
            .help(format!("write `{}:1.0.1`", reference.repository)));
    };
    let config = configuration(args.config.as_deref())?;
    let loaded = policies::chosen(&args.policies, config.as_ref())?;
    if loaded.set.governing(&reference.repository).is_empty() {
        let names: Vec<String> = loaded.set.policies().iter().map(|p| visible(&p.name)).collect();
        return Err(Failure::say(format!("no policy governs {}", reference.repository))
            .help(format!("there are {}; see `spec.repositories` of each", names.join(", "))));
    }
    let verdicts = match args.offline {
        true => Vec::new(),
        false => results(&args.reach, &reference, config.as_ref(), &loaded, terminal).await?,
    };
    terminal.print(&explain(&reference, tag, &loaded, &verdicts, &options))?;
    Ok(0)
}

fn unknown_reason(what: &str) -> Failure {
    let topics = Topic::ALL.iter().map(|topic| topic.as_str());
    let all: Vec<&str> = Reason::ALL.iter().map(|r| r.as_str()).chain(topics).collect();
    let near = all.iter().min_by_key(|r| strsim::damerau_levenshtein(r, what)).copied();
    Failure::say(format!(
        "`{}` is neither a reference (HOST/REPO:TAG) nor a reason; did you mean `{}`?",
        visible(what),
        near.unwrap_or("tag-moved")
    ))
    .help(format!("the reasons are {}", all.join(", ")))
}

/// The verdicts on a reference as it is at its registry. None where it could not be looked at, which is told in one
/// line: what is asked of it can be said all the same, and many ask before they push.
async fn results(
    reach: &Reach,
    reference: &Reference,
    config: Option<&Config>,
    loaded: &Loaded,
    terminal: &Terminal,
) -> Result<Vec<Verdict>, Failure> {
    let mut clients = Clients::new(reach, config)?;
    let record = record(config, terminal);
    let judged = check::one(reference.clone(), &mut clients, &loaded.set, record.as_ref(), terminal).await;
    let why = match judged {
        Ok(outcome) => match outcome.problems.into_iter().next() {
            Some(problem) => problem.message,
            // What was not even seen is undetermined under every policy, for one reason.
            None => match outcome.verdicts.iter().find_map(unseen) {
                Some(finding) => finding.message.clone(),
                None => return Ok(outcome.verdicts),
            },
        },
        Err(Failure::Say { text, .. }) => text,
        Err(failure @ Failure::Faults(_)) => return Err(failure),
    };
    terminal.note(&format!("{reference} is explained without results: {}", visible(&why)));
    Ok(Vec::new())
}

/// Why it is not known where a tag leads, if so.
fn unseen(verdict: &Verdict) -> Option<&Finding> {
    let none = verdict.subject.digest.is_none();
    verdict.findings.iter().find(|finding| none && finding.is_error())
}

/// What each policy that governs the repository asks of the tag, and what comes of it.
fn explain(reference: &Reference, tag: &Tag, loaded: &Loaded, verdicts: &[Verdict], options: &Options) -> String {
    let repository = &reference.repository;
    let mut text = format!("{repository}:{tag}");
    if let Some(digest) = verdicts.iter().find_map(|verdict| verdict.subject.digest.as_ref()) {
        let _ = write!(text, ", now {digest}");
    }
    text.push('\n');
    for policy in loaded.set.governing(repository) {
        let mode = match policy.mode {
            Mode::Preview => "preview: recorded and counted only",
            Mode::Alert => "alert",
            Mode::Enforce => "enforce",
        };
        let _ = write!(text, "\npolicy {} ({mode})\n", visible(&policy.name));
        if let Some(description) = &policy.description {
            let _ = writeln!(text, "  {}", visible(description));
        }
        let verdict = verdicts.iter().find(|verdict| verdict.policy == policy.name);
        text += &explained(policy, tag, verdict, options);
        let today = SystemClock.now();
        for exception in &policy.exceptions {
            for rule in Rule::ALL.iter().filter(|rule| exception.covers(repository, Some(tag), **rule, today)) {
                let _ = writeln!(text, "  until {} not {rule}: {}", exception.until, visible(&exception.reason));
            }
        }
    }
    text
}

fn explained(policy: &Policy, tag: &Tag, verdict: Option<&Verdict>, options: &Options) -> String {
    let mut text = String::new();
    let result = |rule: Rule| verdict.and_then(|verdict| requirement_text(verdict, rule, options));
    let Some(member) = policy.membership(tag) else {
        match &policy.other_tags {
            _ if is_digest_tag(tag) => text += "  no class: signatures, SBOMs and attestations are left alone\n",
            Some(setting) => {
                let (sign, says) = result(Rule::Form).unwrap_or((" ".to_owned(), String::new()));
                let _ =
                    writeln!(text, "{sign} no class has this form, and other tags are denied ({})", setting.severity);
                text += &says;
                for class in &policy.classes {
                    let _ = writeln!(text, "    {:<16}{}", visible(&class.name), forms(class));
                }
            }
            None => text += "  no class has this form, and other tags are allowed: nothing is asked\n",
        }
        return text;
    };
    let class = &policy.classes[member.class];
    let _ =
        write!(text, "  class {}, by the form {}", visible(&class.name), visible(class.forms[member.form].as_str()));
    let captures: Vec<String> =
        member.captures.iter().map(|(name, value)| format!("{name} {}", visible(&value.text()))).collect();
    let _ = writeln!(text, "{}{}", if captures.is_empty() { "" } else { ": " }, captures.join(", "));
    if let Some(version) = verdict.and_then(|verdict| verdict.at_version.as_ref()) {
        let _ = writeln!(text, "  at {version}");
    }
    let rules = class.require.rules();
    if rules.is_empty() {
        text += "    nothing is required\n";
    }
    for (rule, setting) in rules {
        let (sign, says) = result(rule).unwrap_or((" ".to_owned(), String::new()));
        let _ = writeln!(
            text,
            "  {sign} {:<16}{:<10}{}",
            rule.as_str(),
            setting.severity.as_str(),
            detail(policy, class, rule, setting)
        );
        text += &says;
    }
    // Padding leaves blanks where there is no detail.
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn forms(class: &Class) -> String {
    class.forms.iter().map(|f| visible(f.as_str())).collect::<Vec<_>>().join(" or ")
}

/// What there is to say of a requirement beside its name.
fn detail(policy: &Policy, class: &Class, rule: Rule, setting: &Setting) -> String {
    let require = &class.require;
    let name = |n: usize| policy.classes.get(n).map(|c| visible(&c.name)).unwrap_or_default();
    let mut parts: Vec<String> = Vec::new();
    match rule {
        Rule::Kind => parts.extend(require.kind.as_ref().map(|(_, wanted)| wanted.in_words().to_owned())),
        Rule::Platforms => parts.extend(require.platforms.as_ref().map(|(_, rule)| platforms(rule))),
        Rule::Follows => parts
            .extend(require.follows.as_ref().map(|(_, r)| format!("the highest of class {}", name(r.target.class)))),
        Rule::MemberOf => parts.extend(require.member_of.as_ref().map(|(_, r)| format!("of class {}", name(r.class)))),
        Rule::MembersTagged => {
            let by = require.members_tagged.as_ref().and_then(|(_, by)| by.as_ref());
            parts.extend(by.map(|r| format!("by class {}", name(r.class))));
        }
        _ => {}
    }
    if !setting.wait.is_zero() {
        parts.push(format!("for {:#}", setting.wait));
    }
    parts.extend(setting.note.as_ref().map(|note| visible(note)));
    parts.join("; ")
}

fn platforms(rule: &PlatformRule) -> String {
    let list = |word: &str, set: &Option<std::sync::Arc<PlatformSet>>| {
        let set = set.as_ref()?;
        let platforms: Vec<String> = set.at(SystemClock.now()).platforms.iter().map(|p| p.to_string()).collect();
        let named = set.name.as_ref().map(|n| format!(" ({})", visible(n))).unwrap_or_default();
        Some(format!("{word} {}{named}", platforms.join(", ")))
    };
    let parts = [list("all of", &rule.all), list("any of", &rule.any), list("only", &rule.only)];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}
