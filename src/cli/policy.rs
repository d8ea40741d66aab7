//! `tidewaiter policy`: lint files, print the schema, say what a reference meets and what a reason means.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{ValueEnum, ValueHint};
use serde_json::json;

use super::fail::{Failure, configuration};
use super::policies::{self, Loaded};
use super::targets::reference;
use super::terminal::Terminal;
use crate::clock::{Clock, SystemClock};
use crate::document::{Fault, Severity};
use crate::image::{Reference, Tag};
use crate::policy::{self, Class, Mode, PlatformRule, PlatformSet, Policy, Reason, Rule, Setting, is_digest_tag};
use crate::report::{explain_text, visible};

/// Write, check and understand policies
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Check policy files without judging anything; exit code 2 if one is invalid
    Lint {
        /// Files and folders
        #[arg(value_name = "PATH", required = true, value_hint = ValueHint::AnyPath)]
        paths: Vec<PathBuf>,
        /// How faults are written
        #[arg(short, long, value_enum, default_value_t = LintFormat::Text)]
        output: LintFormat,
    },
    Test(super::trial::Args),
    /// Say which class and requirements a reference meets, or what a reason code means
    Explain {
        /// HOST/REPO:TAG, or a reason such as missing-platform
        #[arg(value_name = "REFERENCE|REASON")]
        what: String,
        /// Explain by this policy file or folder; may be repeated
        #[arg(short, long = "policy", value_name = "PATH", value_hint = ValueHint::AnyPath)]
        policies: Vec<PathBuf>,
        /// Take the policies of this configuration
        #[arg(short, long, value_name = "FILE", env = "TIDEWAITER_CONFIG", value_hint = ValueHint::FilePath)]
        config: Option<PathBuf>,
    },
    /// Print the JSON Schema of policy documents, for editors
    Schema,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LintFormat {
    /// As a compiler shows them
    Text,
    /// A list of objects, for editors
    Json,
}

pub(super) fn run(args: Args, terminal: &Terminal) -> Result<u8, Failure> {
    match args.verb {
        Verb::Test(args) => super::trial::run(&args, terminal),
        Verb::Lint { paths, output } => lint(&paths, output, terminal),
        Verb::Explain { what, policies, config } => {
            if let Some(reason) = Reason::ALL.iter().find(|r| r.as_str() == what) {
                terminal.print(&explain_text(*reason, &terminal.listing()))?;
                return Ok(0);
            }
            if !what.contains('/') {
                return Err(unknown_reason(&what));
            }
            let reference = reference(&what)?;
            let config = configuration(config.as_deref())?;
            let loaded = policies::chosen(&policies, config.as_ref())?;
            terminal.print(&explain(&reference, &loaded)?)?;
            Ok(0)
        }
        Verb::Schema => {
            terminal.print(policy::SCHEMA)?;
            Ok(0)
        }
    }
}

fn unknown_reason(what: &str) -> Failure {
    let near = Reason::ALL.iter().map(|r| r.as_str()).min_by_key(|r| strsim::damerau_levenshtein(r, what));
    let all: Vec<&str> = Reason::ALL.iter().map(|r| r.as_str()).collect();
    Failure::say(format!(
        "`{}` is neither a reference (HOST/REPO:TAG) nor a reason; did you mean `{}`?",
        visible(what),
        near.unwrap_or("tag-moved")
    ))
    .help(format!("the reasons are {}", all.join(", ")))
}

fn lint(paths: &[PathBuf], output: LintFormat, terminal: &Terminal) -> Result<u8, Failure> {
    let sources = policies::sources(paths)?;
    let (faults, count) = match policies::read(&sources) {
        Ok(loaded) => {
            let today = SystemClock.now().to_zoned(jiff::tz::TimeZone::UTC).date();
            let faults = policy::lint(&loaded.documents, &loaded.set, None, today);
            (faults, loaded.documents.len())
        }
        Err(Failure::Faults(faults)) => (faults, 0),
        Err(failure) => return Err(failure),
    };
    let invalid = faults.iter().any(|f| f.severity == Severity::Error);
    match output {
        LintFormat::Json => {
            let list: Vec<serde_json::Value> = faults.iter().map(fault_json).collect();
            terminal.print(&format!("{}\n", serde_json::to_string_pretty(&list).unwrap_or_default()))?;
        }
        LintFormat::Text => {
            terminal.print(&crate::document::render(&faults, terminal.listing().colour))?;
            let files = of(sources.len(), "file", "files");
            let errors = faults.iter().filter(|f| f.severity == Severity::Error).count();
            let warnings = faults.len() - errors;
            let gap = if faults.is_empty() { "" } else { "\n" };
            let line = match (errors, warnings) {
                (0, 0) => format!("{files}, {}: no faults", of(count, "document", "documents")),
                (0, n) => format!("{files}: {}", of(n, "warning", "warnings")),
                (n, 0) => format!("{files}: {}", of(n, "error", "errors")),
                (n, m) => format!("{files}: {}, {}", of(n, "error", "errors"), of(m, "warning", "warnings")),
            };
            terminal.print(&format!("{gap}{line}\n"))?;
        }
    }
    Ok(if invalid { 2 } else { 0 })
}

fn fault_json(fault: &Fault) -> serde_json::Value {
    let position = fault.position();
    json!({
        "file": &*fault.source.name, "line": position.line, "column": position.column, "severity": fault.severity.to_string(),
        "code": fault.code, "message": fault.message, "label": fault.label, "help": fault.help,
    })
}

fn of(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// What each policy that governs the repository asks of the tag.
fn explain(reference: &Reference, loaded: &Loaded) -> Result<String, Failure> {
    let repository = &reference.repository;
    let Some(tag) = &reference.tag else {
        return Err(Failure::say(format!("`{reference}` has no tag, and policies are about tags"))
            .help(format!("write `{repository}:1.0.1`")));
    };
    let governing = loaded.set.governing(repository);
    if governing.is_empty() {
        let names: Vec<String> = loaded.set.policies().iter().map(|p| visible(&p.name)).collect();
        return Err(Failure::say(format!("no policy governs {repository}"))
            .help(format!("there are {}; see `spec.repositories` of each", names.join(", "))));
    }
    let mut text = format!("{repository}:{tag}\n");
    for policy in governing {
        let mode = match policy.mode {
            Mode::Preview => "preview: recorded and counted only",
            Mode::Alert => "alert",
            Mode::Enforce => "enforce",
        };
        let _ = write!(text, "\npolicy {} ({mode})\n", visible(&policy.name));
        if let Some(description) = &policy.description {
            let _ = writeln!(text, "  {}", visible(description));
        }
        text += &explained(policy, tag);
        let today = SystemClock.now();
        for exception in &policy.exceptions {
            for rule in Rule::ALL.iter().filter(|rule| exception.covers(repository, Some(tag), **rule, today)) {
                let _ = writeln!(text, "  until {} not {rule}: {}", exception.until, visible(&exception.reason));
            }
        }
    }
    Ok(text)
}

fn explained(policy: &Policy, tag: &Tag) -> String {
    let mut text = String::new();
    let Some(member) = policy.membership(tag) else {
        match &policy.other_tags {
            _ if is_digest_tag(tag) => text += "  no class: signatures, SBOMs and attestations are left alone\n",
            Some(setting) => {
                let _ = writeln!(text, "  no class has this form, and other tags are denied ({})", setting.severity);
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
    let rules = class.require.rules();
    if rules.is_empty() {
        text += "    nothing is required\n";
    }
    for (rule, setting) in rules {
        let _ = writeln!(
            text,
            "    {:<16}{:<10}{}",
            rule.as_str(),
            setting.severity.as_str(),
            detail(policy, class, rule, setting)
        );
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
