//! The daemon's own troubles that people were told of, so that each is told to be over once it is: also after a
//! restart, since they are on record, in one named value of the store. Decides nothing; whoever sees a trouble begin
//! or end says so.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, MutexGuard};

use super::message::{Alert, SinkInfo, Subject, alerts_about_self};
use super::outbox::Outbox;
use super::topic::Topic;
use crate::policy::violation::Edge;
use crate::store::{NewAlert, StoreError};

/// Most troubles that are open at once: more are noise, and the value that holds them stays below a megabyte.
const OPEN_MAX: usize = 200;
/// The name of the value.
const NAME: &str = "troubles";

/// One writer at a time: the troubles are one value.
static WRITER: Mutex<()> = Mutex::const_new(());

/// A trouble that people know of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trouble {
    /// As it was told.
    pub alert: Alert,
    /// Whom it was not told: the sink in trouble.
    pub except: Option<String>,
    /// When it counts as over, if nothing is heard of it before.
    pub until: Option<Timestamp>,
}

impl Trouble {
    /// What it is about.
    pub fn about(&self) -> Option<(Topic, &str)> {
        match &self.alert.subject {
            Subject::Daemon { topic, name } => Some((*topic, name)),
            Subject::Image { .. } | Subject::Test => None,
        }
    }
}

/// The open troubles, opened for changes. Nothing is told or kept before [`close`](Troubles::close).
pub struct Troubles<'a, O> {
    outbox: &'a O,
    sinks: &'a [SinkInfo],
    open: Vec<Trouble>,
    told: Vec<NewAlert>,
    changed: bool,
    _writer: MutexGuard<'static, ()>,
}

impl<'a, O: Outbox> Troubles<'a, O> {
    /// Reads the open troubles and keeps others from changing them meanwhile.
    ///
    /// # Errors
    /// The store's.
    pub async fn read(outbox: &'a O, sinks: &'a [SinkInfo]) -> Result<Troubles<'a, O>, StoreError> {
        let _writer = WRITER.lock().await;
        let open = read(outbox).await?;
        Ok(Troubles { outbox, sinks, open, told: Vec::new(), changed: false, _writer })
    }

    /// Those that are open.
    pub fn open(&self) -> &[Trouble] {
        &self.open
    }

    /// A trouble is there: people are told, once. One that they know of goes on, with what is said of it now.
    pub fn begin(&mut self, trouble: Trouble) {
        let known = self.open.iter_mut().find(|known| known.alert.fingerprint == trouble.alert.fingerprint);
        if let Some(known) = known {
            let said = (trouble.until, &trouble.alert.message);
            if (known.until, &known.alert.message) != said {
                known.until = trouble.until;
                known.alert.message = trouble.alert.message;
                self.changed = true;
            }
            return;
        }
        if self.open.len() >= OPEN_MAX {
            tracing::warn!(trouble = %trouble.alert.title(), "more than {OPEN_MAX} troubles are open; this one is only logged");
            return;
        }
        self.told.extend(alerts_about_self(&trouble.alert, self.sinks, trouble.except.as_deref()));
        self.open.push(trouble);
        self.changed = true;
    }

    /// Those that `over` gives a sentence for are over, and people are told so; how many there were.
    pub fn end(&mut self, now: Timestamp, over: impl Fn(&Trouble) -> Option<String>) -> usize {
        let before = self.open.len();
        for trouble in std::mem::take(&mut self.open) {
            let Some(message) = over(&trouble) else {
                self.open.push(trouble);
                continue;
            };
            let mut alert = trouble.alert.resolved(now);
            alert.say(&message);
            self.told.extend(alerts_about_self(&alert, self.sinks, trouble.except.as_deref()));
            self.changed = true;
        }
        before - self.open.len()
    }

    /// That of a topic and name counts as over at a time, unless it is heard of before.
    pub fn ends_at(&mut self, topic: Topic, name: &str, until: Timestamp) {
        for trouble in self.open.iter_mut().filter(|t| t.about() == Some((topic, name)) && t.until.is_none()) {
            trouble.until = Some(until);
            self.changed = true;
        }
    }

    /// Tells and keeps what changed. It is told first: told twice is better than never, and the id is the same.
    ///
    /// # Errors
    /// The store's: then it is to be tried again.
    pub async fn close(self) -> Result<(), StoreError> {
        if !self.told.is_empty() {
            self.outbox.add(self.told).await?;
        }
        match self.changed {
            true => self.outbox.set_value(NAME, &serde_json::to_string(&self.open).unwrap_or_default()).await,
            false => Ok(()),
        }
    }
}

/// What is open, waiting for whoever changes it.
pub(super) async fn open<O: Outbox>(outbox: &O) -> Result<Vec<Trouble>, StoreError> {
    let _writer = WRITER.lock().await;
    read(outbox).await
}

async fn read<O: Outbox>(outbox: &O) -> Result<Vec<Trouble>, StoreError> {
    let text = outbox.value(NAME).await?.unwrap_or_default();
    // What another version wrote and this one cannot read is told anew where it still is.
    Ok(serde_json::from_str(&text).unwrap_or_default())
}

/// Tells that a trouble is there; whether it is on record.
pub async fn begins<O: Outbox>(outbox: &O, sinks: &[SinkInfo], trouble: Trouble) -> bool {
    let about = trouble.alert.title();
    let told = async {
        let mut troubles = Troubles::read(outbox, sinks).await?;
        troubles.begin(trouble);
        troubles.close().await
    };
    logged(told.await, &about)
}

/// Tells that a trouble is over, where people know of it; whether that is on record.
pub async fn ends<O: Outbox>(
    outbox: &O,
    sinks: &[SinkInfo],
    (topic, name): (Topic, &str),
    message: &str,
    now: Timestamp,
) -> bool {
    let told = async {
        let mut troubles = Troubles::read(outbox, sinks).await?;
        troubles.end(now, |trouble| (trouble.about() == Some((topic, name))).then(|| message.to_owned()));
        troubles.close().await
    };
    logged(told.await, topic.as_str())
}

fn logged(told: Result<(), StoreError>, about: &str) -> bool {
    if let Err(error) = &told {
        tracing::error!(%error, about, "an alert about the daemon itself could not be recorded");
    }
    told.is_ok()
}

/// Since when people know of a trouble.
pub async fn since<O: Outbox>(outbox: &O, topic: Topic, name: &str) -> Option<Timestamp> {
    let open = open(outbox).await.unwrap_or_default();
    open.iter().find(|trouble| trouble.about() == Some((topic, name))).map(|trouble| trouble.alert.fired_at)
}

impl From<Alert> for Trouble {
    /// One that lasts until its end is seen.
    fn from(alert: Alert) -> Trouble {
        debug_assert_eq!(alert.edge, Edge::Fired);
        Trouble { alert, except: None, until: None }
    }
}
