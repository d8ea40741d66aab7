//! From the admin API's JSON back to rows of the record, so that a listing looks the same wherever it came from.

use std::str::FromStr;

use serde_json::Value;

use super::fail::Failure;
use crate::event::Action;
use crate::history::{Known, Origin, Period};
use crate::image::{Host, Repository, RepositoryName};
use crate::policy::violation::{Violation, ViolationKey};
use crate::policy::{Reason, Rule, Severity, State};
use crate::report::visible;
use crate::store::{EventRow, ViolationRow};

/// One object of a list.
struct Row<'a>(&'a Value);

impl Row<'_> {
    fn missing(&self, name: &str) -> Failure {
        Failure::undetermined(format!("the daemon's answer has no usable `{name}`"))
            .help("the daemon may be of another version than this program")
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0[name].as_str()
    }

    fn optional<T: FromStr>(&self, name: &str) -> Result<Option<T>, Failure> {
        self.text(name).map(|text| text.parse().map_err(|_| self.missing(name))).transpose()
    }

    fn parsed<T: FromStr>(&self, name: &str) -> Result<T, Failure> {
        self.optional(name)?.ok_or_else(|| self.missing(name))
    }

    fn word<T>(&self, name: &str, read: impl Fn(&str) -> Option<T>) -> Result<T, Failure> {
        self.text(name).and_then(read).ok_or_else(|| self.missing(name))
    }

    fn texts(&self, name: &str) -> Vec<String> {
        let list = self.0[name].as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
    }

    fn repository(&self) -> Result<Repository, Failure> {
        Ok(Repository::new(self.parsed::<Host>("registry")?, self.parsed::<RepositoryName>("repository")?))
    }
}

/// A violation as the API lists it.
pub(super) fn violation(value: &Value) -> Result<ViolationRow, Failure> {
    let row = Row(value);
    let key = ViolationKey {
        policy: row.word("policy", |text| Some(text.into()))?,
        tag: row.optional("tag")?,
        class: row.text("class").unwrap_or_default().into(),
        rule: row.word("requirement", Rule::from_word)?,
    };
    let violation = Violation {
        key,
        reason: row.word("reason", |word| Reason::ALL.iter().copied().find(|r| r.as_str() == word))?,
        severity: row.word("severity", Severity::from_word)?,
        state: row.word("state", State::from_word)?,
        digest: row.optional("digest")?,
        message: row.text("message").unwrap_or_default().to_owned(),
        advice: row.text("advice").unwrap_or_default().to_owned(),
        expected: row.texts("expected"),
        actual: row.texts("actual"),
        since: row.parsed("since")?,
        fires_at: row.optional("firesAt")?,
        fired_at: row.optional("firedAt")?,
        resolved_at: row.optional("resolvedAt")?,
        preview: value["preview"].as_bool().unwrap_or_default(),
    };
    Ok(ViolationRow { repository: row.repository()?, violation })
}

/// A period of a tag's history as the API lists it.
pub(super) fn period(value: &Value) -> Result<Period, Failure> {
    const ORIGINS: [Origin; 4] = [Origin::Event, Origin::Audit, Origin::Check, Origin::PolicyChange];
    let row = Row(value);
    Ok(Period {
        digest: row.optional("digest")?,
        from: row.parsed("from")?,
        to: row.optional("to")?,
        known: row.word("known", |word| [Known::Observed, Known::Reported].into_iter().find(|k| k.as_str() == word))?,
        origin: row.word("origin", |word| ORIGINS.into_iter().find(|o| o.as_str() == word))?,
        actor: row.text("actor").map(str::to_owned),
    })
}

/// An event as the API lists it.
pub(super) fn event(value: &Value) -> Result<EventRow, Failure> {
    const ACTIONS: [Action; 3] = [Action::Push, Action::Delete, Action::Quarantine];
    let row = Row(value);
    Ok(EventRow {
        number: 0,
        id: row.text("id").map(str::to_owned),
        source: visible(row.text("source").unwrap_or_default()),
        unauthenticated: value["unauthenticated"] == true,
        received_at: row.parsed("receivedAt")?,
        action: row.word("action", |word| ACTIONS.into_iter().find(|a| a.as_str() == word))?,
        repository: row.repository()?,
        tag: row.optional("tag")?,
        digest: row.optional("digest")?,
        state: row.text("state").unwrap_or_default().to_owned(),
        fault: row.text("fault").map(str::to_owned),
    })
}
