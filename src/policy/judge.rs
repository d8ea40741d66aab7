//! The judge: a pure function from policies and an observation to verdicts, and the questions it met.
//!
//! `affected` says which tags a change can concern; `judge` judges them. Both return questions where the
//! observation does not hold an answer yet; the shell answers and calls again until none is left.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use jiff::SignedDuration;

use super::form::Captures;
use super::hint;
use super::observation::{
    Answer, Cause, CauseKind, Fact, LineId, Observation, Question, Span, StoredConfig, StoredManifest, TagRecord,
};
use super::reason::Reason;
use super::rules;
use super::set::{Class, Lead, Membership, Mode, Policy, PolicySet, Setting};
use super::verdict::{Finding, NotEvaluated, Outcome, Rule, Severity, State, Subject, Verdict};
use super::view::{DEPTH_MAX, Shape, View, view};
use crate::history::Origin;
use crate::image::{Digest, Tag};

/// Most tags one change may make judged: a version has a handful of followers and a dozen per-platform tags.
const AFFECTED_MAX: usize = 1_000;

/// What changed in a repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Change {
    /// A tag had one digest (or none) and has another (or none); or was only looked at again.
    Tag {
        /// The tag.
        tag: Tag,
        /// What it had.
        old: Option<Digest>,
        /// What it has.
        new: Option<Digest>,
    },
    /// A manifest came or went by its digest.
    Manifest(Digest),
}

/// What is judged: a tag under a policy, or what a class of it lacks.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// A tag, under the policy at this place of the set.
    Tag(usize, Tag),
    /// The expectation of a class, by places of policy and class.
    Class(usize, usize),
}

/// The judge's answer: complete when no question is open.
#[derive(Debug, Clone, Default)]
pub struct Judgement {
    /// The verdicts; to be used only when `asks` is empty.
    pub verdicts: Vec<Verdict>,
    /// What the judge needs to know first.
    pub asks: Vec<Question>,
    /// What each judged tag leads to, where that is known: its place in the lines depends on it.
    pub leads: BTreeMap<Tag, Lead>,
}

/// Reads an observation and notes what it does not hold.
pub(super) struct Gather<'a> {
    pub observation: &'a Observation,
    asks: BTreeSet<Question>,
    /// What digests lead to, each with whether down to the image configs: several tags lead to one.
    views: HashMap<(Digest, bool), Rc<View>>,
    /// The classes of tags, each with the place of its policy in memory: a tag is met by every rule that relates to it.
    members: RefCell<Members>,
}

type Members = HashMap<(usize, Tag), Option<Rc<Membership>>>;

impl<'a> Gather<'a> {
    pub fn new(observation: &'a Observation) -> Gather<'a> {
        Gather { observation, asks: BTreeSet::new(), views: HashMap::new(), members: RefCell::default() }
    }

    /// The class that governs a tag under a policy, found out once.
    pub fn member(&self, policy: &Policy, tag: &Tag) -> Option<Rc<Membership>> {
        let place = (std::ptr::from_ref(policy).addr(), tag.clone());
        let mut members = self.members.borrow_mut();
        members.entry(place).or_insert_with(|| policy.membership(tag).map(Rc::new)).clone()
    }

    pub fn seen(&self, digest: &Digest, deep: bool) -> Option<Rc<View>> {
        self.views.get(&(digest.clone(), deep)).cloned()
    }

    pub fn keep(&mut self, digest: &Digest, deep: bool, view: Rc<View>) {
        self.views.insert((digest.clone(), deep), view);
    }

    fn ask(&mut self, question: Question) -> Option<&'a Answer> {
        let answer = self.observation.get(&question);
        if answer.is_none() {
            self.asks.insert(question);
        }
        answer
    }

    pub fn manifest(&mut self, digest: &Digest) -> Option<Fact<Arc<StoredManifest>>> {
        match self.ask(Question::Manifest(digest.clone()))? {
            Answer::Manifest(fact) => Some(fact.clone()),
            _ => Some(misanswered()),
        }
    }

    pub fn config(&mut self, digest: &Digest) -> Option<Fact<Arc<StoredConfig>>> {
        match self.ask(Question::Config(digest.clone()))? {
            Answer::Config(fact) => Some(fact.clone()),
            _ => Some(misanswered()),
        }
    }

    pub fn tag(&mut self, tag: &Tag) -> Option<Fact<Arc<TagRecord>>> {
        match self.ask(Question::Tag(tag.clone()))? {
            Answer::Tag(fact) => Some(fact.clone()),
            _ => Some(misanswered()),
        }
    }

    pub fn line(&mut self, line: &LineId, group: Vec<u8>, span: Span) -> Option<Fact<Arc<[Tag]>>> {
        self.tags(Question::Line { line: line.clone(), group, span })
    }

    pub fn tagged(&mut self, digest: &Digest) -> Option<Fact<Arc<[Tag]>>> {
        self.tags(Question::Tagged(digest.clone()))
    }

    fn tags(&mut self, question: Question) -> Option<Fact<Arc<[Tag]>>> {
        match self.ask(question)? {
            Answer::Tags(fact) => Some(fact.clone()),
            _ => Some(misanswered()),
        }
    }

    pub fn parents(&mut self, digest: &Digest) -> Option<Fact<Arc<[Digest]>>> {
        match self.ask(Question::Parents(digest.clone()))? {
            Answer::Digests(fact) => Some(fact.clone()),
            _ => Some(misanswered()),
        }
    }

    pub fn locked(&mut self, tag: &Tag, digest: &Digest) -> Option<Fact<bool>> {
        match self.ask(Question::Locked(tag.clone(), digest.clone()))? {
            Answer::Locked(fact) => Some(fact.clone()),
            _ => Some(misanswered()),
        }
    }
}

/// An answer of another kind than its question: a fault of the shell, which must not become a pass.
fn misanswered<T>() -> Fact<T> {
    Fact::Undetermined(Cause {
        kind: CauseKind::Registry,
        text: "the question was answered with something else".into(),
    })
}

/// The tags and expectations that a change can concern: the cost depends on them, never on how many tags the
/// repository has.
pub fn affected(set: &PolicySet, observation: &Observation, changes: &[Change]) -> (BTreeSet<Target>, Vec<Question>) {
    let mut gather = Gather::new(observation);
    let mut targets = BTreeSet::new();
    for (n, policy) in governing(set, observation) {
        let (mut tags, mut digests) = (BTreeSet::new(), BTreeSet::new());
        for change in changes {
            match change {
                Change::Tag { tag, old, new } => {
                    // A tag that was not there and is not there concerns nobody but itself, whatever an event said of it.
                    let concerned = if old.is_none() && new.is_none() { &mut targets } else { &mut tags };
                    concerned.insert(Target::Tag(n, tag.clone()));
                    // What the tag left or came to may be gone or back with it, and whatever shares it is at this
                    // version, or is so no more.
                    digests.extend(old.iter().chain(new));
                }
                Change::Manifest(digest) => {
                    digests.insert(digest);
                }
            }
        }
        // What leads to a manifest, directly or through indexes.
        for digest in digests {
            tags_on(&mut gather, n, digest, &mut tags);
            tags_above(&mut gather, n, digest, &mut tags);
        }
        for target in &tags {
            if let Target::Tag(_, tag) = target {
                neighbours(&mut gather, n, policy, tag, changes, &mut targets);
            }
        }
        targets.extend(tags);
    }
    while targets.len() > AFFECTED_MAX {
        targets.pop_last();
    }
    (targets, gather.asks.into_iter().collect())
}

fn governing<'a>(set: &'a PolicySet, observation: &Observation) -> Vec<(usize, &'a Arc<Policy>)> {
    set.places(&observation.repository).into_iter().map(|n| (n, &set.policies()[n])).collect()
}

/// The tags related to one tag by the classes of a policy.
fn neighbours(
    gather: &mut Gather<'_>,
    n: usize,
    policy: &Policy,
    tag: &Tag,
    changes: &[Change],
    targets: &mut BTreeSet<Target>,
) {
    let Some(member) = gather.member(policy, tag) else { return };
    let class = &policy.classes[member.class];
    let mut add = |gather: &mut Gather<'_>, line: &LineId, group: Vec<u8>, span: Span| {
        if let Some(Fact::Known(tags)) = gather.line(line, group, span) {
            targets.extend(tags.iter().map(|t| Target::Tag(n, t.clone())));
        }
    };
    for other in &policy.classes {
        let relations = [
            other.require.follows.as_ref().map(|(_, f)| &f.target),
            other.require.member_of.as_ref().map(|(_, r)| r),
            other.require.members_tagged.as_ref().and_then(|(_, r)| r.as_ref()),
        ];
        for relation in relations.into_iter().flatten().filter(|r| r.class == member.class) {
            for pairing in &relation.by_form {
                add(gather, &pairing.ours, member.captures.group(&pairing.shared), Span::All);
            }
        }
    }
    // Where the class had no tag or has none any more, whatever follows it is concerned: `orphan` is said of tags
    // only while there is something to follow.
    if class.is_followed
        && class.expected.is_some()
        && let Some(whole) = policy.whole_line(member.class)
    {
        let changed = |t: &Tag| changes.iter().any(|c| matches!(c, Change::Tag { tag, .. } if tag == t));
        let highest = gather.line(whole, Captures::default().group(&[]), Span::Highest(changes.len() + 1));
        if highest.is_some_and(|fact| matches!(fact, Fact::Known(tags) if tags.iter().all(changed))) {
            for (c, other) in policy.classes.iter().enumerate() {
                let follows = other.require.follows.as_ref().is_some_and(|(_, f)| f.target.class == member.class);
                if let Some(line) = policy.whole_line(c).filter(|_| follows) {
                    add(gather, line, Captures::default().group(&[]), Span::All);
                }
            }
        }
    }
    let rank = member.captures.rank();
    if let Some((_, keeps)) = &class.require.keeps_platforms {
        add(gather, &keeps.line, member.captures.group(&keeps.shared), Span::Above(rank.clone(), 1));
    }
    // The highest version is judged by the newest platform set: whoever stops or begins to be it is concerned.
    if class.is_followed
        && class.require.platforms.is_some()
        && let Some(line) = policy.whole_line(member.class)
    {
        add(gather, line, Captures::default().group(&[]), Span::Below(rank, 1));
    }
    // What is expected beside this tag, of its own class or another: a repository that has one tag must have these.
    let expecting = policy.classes.iter().enumerate().filter(|(_, other)| other.expected.is_some());
    targets.extend(expecting.map(|(c, _)| Target::Class(n, c)));
}

fn tags_on(gather: &mut Gather<'_>, n: usize, digest: &Digest, targets: &mut BTreeSet<Target>) {
    if let Some(Fact::Known(tags)) = gather.tagged(digest) {
        targets.extend(tags.iter().map(|t| Target::Tag(n, t.clone())));
    }
}

/// The tags on the indexes that list a digest, directly or through further indexes, as deep as these are opened.
fn tags_above(gather: &mut Gather<'_>, n: usize, digest: &Digest, targets: &mut BTreeSet<Target>) {
    let mut seen: BTreeSet<Digest> = BTreeSet::new();
    let mut below = vec![digest.clone()];
    for _ in 0..DEPTH_MAX {
        let mut above = Vec::new();
        for digest in &below {
            let Some(Fact::Known(parents)) = gather.parents(digest) else { continue };
            above.extend(parents.iter().filter(|p| seen.insert((*p).clone())).cloned());
        }
        above.iter().for_each(|parent| tags_on(gather, n, parent, targets));
        below = above;
    }
}

/// Every target of these tags and every expectation, as for a `check` or an audit of a whole repository.
pub fn targets_of(set: &PolicySet, observation: &Observation, tags: &[Tag], expectations: bool) -> BTreeSet<Target> {
    let mut targets = BTreeSet::new();
    for (n, policy) in governing(set, observation) {
        targets.extend(tags.iter().map(|t| Target::Tag(n, t.clone())));
        if expectations {
            let expecting = policy.classes.iter().enumerate().filter(|(_, c)| c.expected.is_some());
            targets.extend(expecting.map(|(c, _)| Target::Class(n, c)));
        }
    }
    targets
}

/// Judges targets.
pub fn judge(set: &PolicySet, observation: &Observation, targets: &BTreeSet<Target>, origin: Origin) -> Judgement {
    let mut gather = Gather::new(observation);
    let mut judgement = Judgement::default();
    for target in targets {
        let verdict = match target {
            Target::Tag(n, tag) => set.policies().get(*n).and_then(|policy| {
                let case = Case::new(policy, observation, origin, Some(tag.clone()));
                case.tag(&mut gather, tag, &mut judgement.leads)
            }),
            Target::Class(n, c) => set
                .policies()
                .get(*n)
                .and_then(|policy| Case::new(policy, observation, origin, None).expectation(&mut gather, *c)),
        };
        judgement.verdicts.extend(verdict);
    }
    judgement.asks = gather.asks.into_iter().collect();
    judgement
}

/// One target under one policy, while it is judged.
pub(super) struct Case<'a> {
    pub policy: &'a Policy,
    pub observation: &'a Observation,
    verdict: Verdict,
}

/// What requirements of a present tag look at together.
pub(super) struct Facts<'a> {
    pub tag: &'a Tag,
    pub class: &'a Class,
    pub class_place: usize,
    pub form: usize,
    pub captures: &'a Captures,
    pub record: &'a TagRecord,
    pub digest: &'a Digest,
    pub view: &'a View,
}

/// What one requirement comes to.
pub(super) enum Met {
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
    fn new(policy: &'a Policy, observation: &'a Observation, origin: Origin, tag: Option<Tag>) -> Case<'a> {
        let verdict = Verdict {
            repository: observation.repository.clone(),
            subject: Subject { tag, ..Subject::default() },
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
    fn tag(mut self, gather: &mut Gather<'_>, tag: &Tag, leads: &mut BTreeMap<Tag, Lead>) -> Option<Verdict> {
        let record = match gather.tag(tag)? {
            Fact::Known(record) => record,
            Fact::Absent => Arc::new(TagRecord::default()),
            Fact::Undetermined(cause) => {
                let member = gather.member(self.policy, tag);
                let class = member.map(|m| &self.policy.classes[m.class]);
                self.verdict.class = class.map(|c| c.name.clone());
                let rules: Vec<Rule> =
                    class.map(|c| c.require.rules().iter().map(|(r, _)| *r).collect()).unwrap_or_default();
                self.undetermined(rules.first().copied().unwrap_or(Rule::Form), &cause);
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
            return self.gone(gather, class, &record);
        };
        // Deep only if a requirement looks at what the images themselves say.
        let deep = class.require.each().any(|(rule, _)| {
            matches!(
                rule,
                Rule::Platforms
                    | Rule::Intact
                    | Rule::KeepsPlatforms
                    | Rule::Config
                    | Rule::MembersTagged
                    | Rule::MemberOf
                    | Rule::Expect
            )
        });
        let looks =
            class.require.each().any(|(rule, _)| !matches!(rule, Rule::Immutable | Rule::Present | Rule::Locked));
        let view = if looks {
            match view(gather, digest, deep) {
                Some(view) => view,
                None => {
                    // Relations ask their own questions; asking them now saves a round.
                    self.evaluate(gather, tag, &member, &record, digest, &placeholder());
                    return None;
                }
            }
        } else {
            Rc::new(placeholder())
        };
        self.verdict.subject.kind = if looks { view.kind() } else { None };
        self.verdict.subject.platforms = view.platforms();
        if let Some(lead) = view.lead().filter(|_| looks) {
            leads.insert(tag.clone(), lead);
        }
        self.evaluate(gather, tag, &member, &record, digest, &view)
            .then(|| self.close(class.require.each().next().is_none()))
    }

    /// Evaluates every requirement of the class; whether all came to an end.
    fn evaluate(
        &mut self,
        gather: &mut Gather<'_>,
        tag: &Tag,
        member: &super::set::Membership,
        record: &TagRecord,
        digest: &Digest,
        view: &View,
    ) -> bool {
        let policy = self.policy;
        let class = &policy.classes[member.class];
        let facts = Facts {
            tag,
            class,
            class_place: member.class,
            form: member.form,
            captures: &member.captures,
            record,
            digest,
            view,
        };
        let mut complete = true;
        let mut blocked: Option<String> = None;
        for (rule, _) in class.require.each() {
            // One cause, one finding: what cannot be read or is no image is told once, under the first
            // requirement that looks at it, and what depends on it is not evaluated.
            let looks_at_image = !matches!(rule, Rule::Immutable | Rule::Present | Rule::Locked | Rule::Kind);
            let met = match &blocked {
                Some(why) if looks_at_image => Met::Not(why.clone()),
                _ => rules::evaluate(self, gather, rule, &facts),
            };
            match met {
                Met::Yes => self.verdict.evaluated.push(rule),
                Met::Found => self.verdict.evaluated.push(rule),
                Met::Not(why) => self.verdict.not_evaluated.push(NotEvaluated { rule, why }),
                Met::Asked => complete = false,
            }
            if blocked.is_none() && looks_at_image || rule == Rule::Kind {
                blocked = blocked.or_else(|| blocks(view, class, &self.verdict.findings));
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
    fn gone(mut self, gather: &mut Gather<'_>, class: &Class, record: &TagRecord) -> Option<Verdict> {
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
    fn expectation(mut self, gather: &mut Gather<'_>, place: usize) -> Option<Verdict> {
        let class = self.policy.classes.get(place)?;
        let setting = class.expected.as_ref()?;
        self.verdict.class = Some(class.name.clone());
        let line = self.policy.whole_line(place)?;
        match gather.line(line, Captures::default().group(&[]), Span::Highest(1))? {
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
                self.undetermined(Rule::Expected, &cause);
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

/// Stands where no requirement looks at what the tag leads to, or while that is being asked.
fn placeholder() -> View {
    View { shape: Shape::Index, leaves: Vec::new(), problems: Vec::new(), unknown: Vec::new() }
}

/// Why nothing that depends on the image can be evaluated, if so: a finding has said the cause already.
fn blocks(view: &View, class: &Class, findings: &[Finding]) -> Option<String> {
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

/// Tags that tools make for signatures, attestations, SBOMs and referrers: `sha256-<64 hex>` with perhaps a
/// suffix (OCI distribution specification, referrers tag schema; cosign).
pub fn is_digest_tag(tag: &Tag) -> bool {
    let Some(rest) = tag.as_str().strip_prefix("sha256-") else { return false };
    let (hex, suffix) = rest.split_at(rest.len().min(64));
    hex.len() == 64
        && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        && matches!(suffix, "" | ".sig" | ".att" | ".sbom")
}
