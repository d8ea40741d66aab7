//! The policy language: what a registry's tags must be, and the judge.
//!
//! `judge(&policies, &observation) -> verdicts` is a pure function: no I/O, no clock, no log. Events, audits,
//! `check`, `replay` and policy tests all come here, so they cannot disagree. Everything a requirement may
//! look at is in the [`Observation`]; what is missing there is asked for, never fetched.

mod compile;
mod denial;
mod expression;
pub mod form;
mod hint;
mod judge;
mod lint;
mod load;
mod observation;
mod pending;
mod reason;
mod rules;
mod scope;
mod set;
mod shipped;
pub mod trial;
mod verdict;
mod view;
pub mod violation;

pub use compile::{ReadFile, compile};
pub use denial::denials;
pub use expression::VARIABLES;
pub use judge::{Change, Judgement, Target, affected, is_digest_tag, judge, targets_of};
pub use lint::lint;
pub use load::{Document, SCHEMA, documents, load};
pub use observation::{
    Answer, Cause, CauseKind, Fact, LineId, LineKey, Observation, Question, SPAN_MAX, Span, StoredConfig,
    StoredManifest, TagRecord,
};
pub use pending::Pending;
pub use reason::{Page, Reason};
pub use scope::{Glob, GlobError, Scope};
pub use set::{
    Class, Exception, Lead, Membership, Mode, PlatformRule, PlatformSet, Policy, PolicySet, Requirements, Setting,
};
pub use shipped::{shipped, templates};
pub use verdict::{Finding, Kind, NotEvaluated, Outcome, PolicyLocation, Rule, Severity, State, Subject, Verdict};
