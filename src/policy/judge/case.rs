//! One target under one policy: which requirements are asked of it, in which order, and what they come to.

use std::collections::BTreeMap;
use std::rc::Rc;

use jiff::SignedDuration;

use super::super::hint;
use super::super::observation::{Cause, Fact, Observation, Span, TagRecord};
use super::super::reason::Reason;
use super::super::rules;
use super::super::set::{Class, Lead, Looks, Membership, Mode, Policy, Setting};
use super::super::verdict::{Finding, NotEvaluated, Outcome, Rule, Severity, State, Subject, Verdict};
use super::super::view::{Shape, View, view};
use super::{Gather, is_digest_tag};
use crate::history::Origin;
use crate::image::{Digest, Tag};

/// One target under one policy, while it is judged.
pub(in super::super) struct Case<'a> {
    pub policy: &'a Policy,
    pub observation: &'a Observation,
    verdict: Verdict,
}

/// What requirements of a present tag look at together.
pub(in super::super) struct Facts<'a> {
    pub tag: &'a Tag,
    pub class: &'a Class,
    pub member: Rc<Membership>,
    pub record: &'a TagRecord,
    pub digest: &'a Digest,
    pub view: Rc<View<'a>>,
}

/// The record of a tag that is not there and never was.
static NO_RECORD: TagRecord = TagRecord { current: None, history: None, accepted: None, judged_moves: 0, locked: None };

/// What one requirement comes to.
pub(in super::super) enum Met {
    /// It holds.
    Yes,
    /// It does not, or could not be determined: the findings were added.
    Found,
    /// It was not evaluated, and why.
    Not(String),
    /// A question was asked first.
    Asked,
}

impl<'a> Case<'a> {
    pub fn new(policy: &'a Policy, observation: &'a Observation, origin: Origin, tag: Option<&Tag>) -> Case<'a> {
        let verdict = Verdict {
            repository: observation.repository.clone(),
            subject: Subject { tag: tag.cloned(), ..Subject::default() },
            policy: policy.name.clone(),
            policy_hash: policy.hash.clone(),
            class: None,
            at_version: None,
            outcome: Outcome::Pass,
            origin,
            judged_at: observation.now,
            preview: policy.mode == Mode::Preview,
            findings: Vec::new(),
            not_evaluated: Vec::new(),
            evaluated: Vec::new(),
        };
        Case { policy, observation, verdict }
    }

    /// Judges a tag. `None` while questions are open.
    pub fn tag(mut self, gather: &mut Gather<'a>, tag: &'a Tag, leads: &mut BTreeMap<Tag, Lead>) -> Option<Verdict> {
        let record = match gather.tag(tag)? {
            Fact::Known(record) => record,
            Fact::Absent => &NO_RECORD,
            Fact::Undetermined(cause) => {
                let member = gather.member(self.policy, tag);
                let class = member.map(|m| &self.policy.classes[m.class]);
                self.verdict.class = class.map(|c| c.name.clone());
                let rules: Vec<Rule> =
                    class.map(|c| c.require.rules().iter().map(|(r, _)| *r).collect()).unwrap_or_default();
                self.undetermined(rules.first().copied().unwrap_or(Rule::Form), cause);
                // Said of none of them, so that no violation on record is taken for resolved.
                let why = "what the tag points to could not be determined";
                let rest = rules.iter().skip(1).chain(&[Rule::Form]);
                self.verdict.not_evaluated.extend(rest.map(|rule| NotEvaluated { rule: *rule, why: why.to_owned() }));
                return Some(self.close(false));
            }
        };
        self.verdict.subject.digest = record.current.clone();
        let Some(member) = gather.member(self.policy, tag) else {
            return Some(self.classless(tag, record.current.is_some()));
        };
        let class = &self.policy.classes[member.class];
        self.verdict.class = Some(class.name.clone());
        let Some(digest) = &record.current else {
            return self.gone(gather, class, record);
        };
        let looks = class.require.looks();
        let view = match looks {
            Looks::Nowhere => Some(Rc::new(View::default())),
            Looks::AtManifest => view(gather, digest, false),
            Looks::AtImages => view(gather, digest, true),
        };
        let Some(view) = view else {
            // Relations ask their own questions; asking them now saves a round.
            self.evaluate(gather, &Facts { tag, class, member, record, digest, view: Rc::default() });
            return None;
        };
        if looks != Looks::Nowhere {
            self.verdict.subject.kind = view.kind();
            self.verdict.subject.platforms = view.platforms().iter().map(|p| (*p).clone()).collect();
            if let Some(lead) = view.lead() {
                leads.insert(tag.clone(), lead);
            }
        }
        self.evaluate(gather, &Facts { tag, class, member, record, digest, view })
            .then(|| self.close(class.require.each().next().is_none()))
    }

    /// Evaluates every requirement of the class; whether all came to an end.
    fn evaluate(&mut self, gather: &mut Gather<'a>, facts: &Facts<'a>) -> bool {
        let class = facts.class;
        let mut complete = true;
        let mut blocked: Option<String> = None;
        for (rule, _) in class.require.each() {
            // One cause, one finding: what cannot be read or is no image is told once, under the first
            // requirement that looks at it, and what depends on it is not evaluated.
            let looks_at_image = !matches!(rule, Rule::Immutable | Rule::Present | Rule::Locked | Rule::Kind);
            let met = match &blocked {
                Some(why) if looks_at_image => Met::Not(why.clone()),
                _ => rules::evaluate(self, gather, rule, facts),
            };
            match met {
                Met::Yes | Met::Found => self.verdict.evaluated.push(rule),
                Met::Not(why) => self.verdict.not_evaluated.push(NotEvaluated { rule, why }),
                Met::Asked => complete = false,
            }
            if blocked.is_none() && looks_at_image || rule == Rule::Kind {
                blocked = blocked.or_else(|| blocks(&facts.view, class, &self.verdict.findings));
            }
        }
        complete
    }

    /// A tag that no class governs.
    fn classless(mut self, tag: &Tag, present: bool) -> Verdict {
        let Some(setting) = self.policy.other_tags.as_ref().filter(|_| present && !is_digest_tag(tag)) else {
            return self.close(true);
        };
        let hint = hint::near_miss(self.policy, tag.as_str());
        let finding = self.finding(
            Rule::Form,
            Reason::UnknownForm,
            setting,
            format!("`{tag}` has none of the forms that the policy knows: {}", hint.says),
        );
        self.verdict.findings.push(Finding {
            advice: hint.advice,
            expected: hint.forms,
            actual: vec![tag.to_string()],
            ..finding
        });
        self.verdict.evaluated.push(Rule::Form);
        self.close(false)
    }

    /// A tag that is not there: only what remembers it is asked.
    fn gone(mut self, gather: &mut Gather<'a>, class: &Class, record: &'a TagRecord) -> Option<Verdict> {
        let mut complete = true;
        for (rule, setting) in class.require.each() {
            let met = match rule {
                Rule::Present => rules::present(&mut self, setting, record),
                Rule::Immutable => rules::immutable(&mut self, gather, class, record),
                _ => Met::Not("the tag is not there".to_owned()),
            };
            match met {
                Met::Yes | Met::Found => self.verdict.evaluated.push(rule),
                Met::Not(why) => self.verdict.not_evaluated.push(NotEvaluated { rule, why }),
                Met::Asked => complete = false,
            }
        }
        // Nothing evaluated is nothing passed (T-41).
        complete.then(|| {
            let vacuous = self.verdict.evaluated.is_empty();
            self.close(vacuous)
        })
    }

    /// The expectation that a class has a tag.
    pub fn expectation(mut self, gather: &mut Gather<'a>, place: usize) -> Option<Verdict> {
        let class = self.policy.classes.get(place)?;
        let setting = class.expected.as_ref()?;
        self.verdict.class = Some(class.name.clone());
        let line = self.policy.whole_line(place)?;
        match gather.whole_line(line, Span::Highest(1))? {
            Fact::Known(tags) if !tags.is_empty() => {}
            Fact::Known(_) | Fact::Absent => {
                let forms: Vec<String> = class.forms.iter().map(|f| f.as_str().to_owned()).collect();
                let what = match class.forms.first().and_then(|f| f.literal()) {
                    Some(literal) if class.forms.len() == 1 => format!("the tag `{literal}`"),
                    _ => format!("any tag of the form `{}` (class {})", forms.join("` or `"), class.name),
                };
                let finding = self.finding(
                    Rule::Expected,
                    Reason::ExpectedMissing,
                    setting,
                    format!("the repository lacks {what}"),
                );
                self.verdict.findings.push(Finding { advice: format!("Push {what}."), expected: forms, ..finding });
            }
            Fact::Undetermined(cause) => {
                self.undetermined(Rule::Expected, cause);
            }
        }
        self.verdict.evaluated.push(Rule::Expected);
        Some(self.close(false))
    }

    /// A finding with what every finding has.
    pub fn finding(&self, rule: Rule, reason: Reason, setting: &Setting, message: String) -> Finding {
        Finding {
            rule,
            reason,
            severity: setting.severity,
            state: State::Firing,
            message,
            advice: reason.page().fix.to_owned(),
            expected: Vec::new(),
            actual: Vec::new(),
            // Without a record nobody knows since when: the time counts as elapsed.
            wait: if self.observation.recorded { setting.wait } else { SignedDuration::ZERO },
            since: self.observation.now,
            note: setting.note.clone(),
            source: setting.source.clone(),
        }
    }

    /// Adds a finding.
    pub fn found(&mut self, finding: Finding) -> Met {
        self.verdict.findings.push(finding);
        Met::Found
    }

    /// Adds that something could not be determined: never a pass.
    pub fn undetermined(&mut self, rule: Rule, cause: &Cause) -> Met {
        let reason = Reason::from(cause.kind);
        self.found(Finding {
            rule,
            reason,
            severity: Severity::Warning,
            state: State::Firing,
            message: cause.text.clone(),
            advice: reason.page().fix.to_owned(),
            expected: Vec::new(),
            actual: Vec::new(),
            wait: SignedDuration::ZERO,
            since: self.observation.now,
            note: None,
            source: None,
        })
    }

    /// Says at which version a following tag is.
    pub fn at_version(&mut self, version: Tag) {
        self.verdict.at_version = Some(version);
    }

    /// Applies exceptions and sums up: the one place for both, for events, audits, checks and replays.
    fn close(mut self, ignored: bool) -> Verdict {
        let now = self.observation.now;
        let verdict = &mut self.verdict;
        let repository = &verdict.repository;
        let tag = verdict.subject.tag.as_ref();
        let mut excepted: Vec<NotEvaluated> = Vec::new();
        verdict.findings.retain(|finding| {
            let exception = self.policy.exceptions.iter().find(|e| e.covers(repository, tag, finding.rule, now));
            if let Some(exception) = exception.filter(|_| !finding.is_error()) {
                let why = format!("excepted until {}: {}", exception.until, exception.reason);
                excepted.push(NotEvaluated { rule: finding.rule, why });
            }
            exception.is_none() || finding.is_error()
        });
        excepted.dedup();
        verdict.not_evaluated.extend(excepted);
        verdict.outcome = Verdict::outcome_of(&verdict.findings, ignored);
        self.verdict
    }
}

/// Why nothing that depends on the image can be evaluated, if so: a finding has said the cause already.
fn blocks(view: &View<'_>, class: &Class, findings: &[Finding]) -> Option<String> {
    if findings.is_empty() {
        return None;
    }
    let wants_image = class.require.kind.as_ref().is_some_and(|(_, wanted)| wanted.accepts(Lead::Image));
    match &view.shape {
        Shape::Artifact { name, .. } if wants_image => Some(format!("it leads to {name}")),
        Shape::Legacy => Some("it has the format Docker schema 1".to_owned()),
        Shape::Malformed(reason, _) => Some(reason.page().wrong.trim_end_matches('.').to_lowercase()),
        Shape::Absent => Some("its manifest is not in the registry".to_owned()),
        Shape::Undetermined(_) => Some("what it leads to could not be determined".to_owned()),
        _ => None,
    }
}
