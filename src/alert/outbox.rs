//! What delivery needs of the store, and nothing more. Every store has it.

use std::future::Future;
use std::time::Duration;

use jiff::Timestamp;

use crate::policy::State;
use crate::store::{NewAlert, OutboxItem, Page, Paging, Store, StoreError, ViolationFilter, ViolationRow};

/// The waiting alerts of all sinks, and the violations that are firing.
pub trait Outbox: Send + Sync + 'static {
    /// The alerts for `sink` that are due by `horizon`, by number, at most `limit`.
    fn waiting(
        &self,
        sink: &str,
        horizon: Timestamp,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<OutboxItem>, StoreError>> + Send;

    /// Waits until an alert may be due, or `at_most` has passed.
    fn work(&self, now: Timestamp, at_most: Duration) -> impl Future<Output = ()> + Send;

    /// Removes alerts: delivered, or refused for good.
    fn done(&self, ids: Vec<i64>) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Records a failed attempt and when the next is planned.
    fn retry(&self, id: i64, at: Timestamp) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Adds alerts about the daemon itself.
    fn add(&self, alerts: Vec<NewAlert>) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// A page of the violations that are firing.
    fn firing(&self, paging: Paging) -> impl Future<Output = Result<Page<ViolationRow>, StoreError>> + Send;

    /// A named value of the daemon's own.
    fn value(&self, name: &str) -> impl Future<Output = Result<Option<String>, StoreError>> + Send;

    /// Sets a named value.
    fn set_value(&self, name: &str, value: &str) -> impl Future<Output = Result<(), StoreError>> + Send;
}

impl<S: Store> Outbox for S {
    fn waiting(
        &self,
        sink: &str,
        horizon: Timestamp,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<OutboxItem>, StoreError>> + Send {
        self.outbox(sink, horizon, limit)
    }

    fn work(&self, now: Timestamp, at_most: Duration) -> impl Future<Output = ()> + Send {
        self.outbox_work(now, at_most)
    }

    fn done(&self, ids: Vec<i64>) -> impl Future<Output = Result<(), StoreError>> + Send {
        self.outbox_done(ids)
    }

    fn retry(&self, id: i64, at: Timestamp) -> impl Future<Output = Result<(), StoreError>> + Send {
        self.outbox_retry(id, at)
    }

    fn add(&self, alerts: Vec<NewAlert>) -> impl Future<Output = Result<(), StoreError>> + Send {
        self.outbox_add(alerts)
    }

    fn firing(&self, paging: Paging) -> impl Future<Output = Result<Page<ViolationRow>, StoreError>> + Send {
        self.violations(ViolationFilter { states: vec![State::Firing], ..ViolationFilter::default() }, paging)
    }

    fn value(&self, name: &str) -> impl Future<Output = Result<Option<String>, StoreError>> + Send {
        self.get(name)
    }

    fn set_value(&self, name: &str, value: &str) -> impl Future<Output = Result<(), StoreError>> + Send {
        self.set(name, value)
    }
}
