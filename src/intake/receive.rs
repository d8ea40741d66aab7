//! One request, from its head to its answer.

use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE};
use hyper::{HeaderMap, Method, Request, Uri};

use super::body::{self, Buffered};
use super::record::{self, Plan};
use super::respond::{self, Refusal, Tally};
use super::{Decision, Intake, Known};
use crate::event::{self, Action, Format, Handshake, Headers, Stage};
use crate::listen::{Answer, Peer, Service};
use crate::metrics::{EventResult, Limit};
use crate::store::{Store, StoreError};

/// What stands before a source's name.
const PREFIX: &str = "/v1/events/";
/// Longest reason given for a refused push, in characters.
const REASON_CHARS_MAX: usize = 500;

impl<S: Store> Service for Intake<S> {
    async fn answer(&self, request: Request<Incoming>, peer: &Peer) -> Answer {
        let (head, mut body) = request.into_parts();
        match self.receive(&head.method, &head.uri, &head.headers, &mut body, peer).await {
            Ok(answer) => answer,
            Err(refusal) => {
                body::linger(body);
                refusal.answer()
            }
        }
    }
}

impl<S: Store> Intake<S> {
    async fn receive(
        &self,
        method: &Method,
        uri: &Uri,
        fields: &HeaderMap,
        body: &mut Incoming,
        peer: &Peer,
    ) -> Result<Answer, Refusal> {
        let query = uri.query().unwrap_or_default();
        if uri.path().len() + query.len() > self.limits.target_bytes {
            return Err(Refusal::TargetTooLong);
        }
        let known = uri.path().strip_prefix(PREFIX).and_then(|name| self.sources.find(name));
        let known = known.ok_or(Refusal::NotFound)?;
        let source = &known.source;
        let options = method == Method::OPTIONS && source.format.answers_options();
        if method != Method::POST && !options {
            return Err(Refusal::Method { options: source.format.answers_options() });
        }

        let headers: Headers<'_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let received = self.authentic(&known, method, query, fields, &headers, body, peer, options).await;
        received.inspect_err(|refusal| {
            tracing::debug!(source = %source.name, address = %peer.address, ?refusal, "a request was refused");
            let result = match refusal {
                // An authentic question and its answer: nothing is wrong with the sender.
                Refusal::Denied { .. } => EventResult::Denied,
                _ => EventResult::Rejected,
            };
            known.counters.add(None, result, 1);
        })
    }

    #[expect(clippy::too_many_arguments, reason = "one request, taken apart once; a struct would only rename them")]
    async fn authentic(
        &self,
        known: &Known,
        method: &Method,
        query: &str,
        fields: &HeaderMap,
        headers: &Headers<'_>,
        body: &mut Incoming,
        peer: &Peer,
        options: bool,
    ) -> Result<Answer, Refusal> {
        let source = &known.source;
        let certificate = peer.certificate.as_ref();
        let unauthenticated = |_| Refusal::Unauthenticated;
        if options && !source.auth.is_in_address() {
            // A handshake proves nothing and changes nothing; its sender cannot be told to send a header yet.
            return self.handshake_only(source.format, headers);
        }
        let proof =
            source.auth.check_head(headers, query, certificate, || self.clock.now()).map_err(unauthenticated)?;
        if options {
            return self.handshake_only(source.format, headers);
        }
        acceptable(source.format, fields)?;
        let limit = match source.format {
            Format::EventGrid | Format::Distribution | Format::Gitlab => self.limits.batch_bytes,
            _ => self.limits.event_bytes,
        };
        let time = self.limits.connection.body_time;
        let all_limit = self.limits.buffered_bytes;
        let body = body::read(body, limit, time, &self.buffered, all_limit, &self.metrics).await?;
        let Ok(_place) = self.in_flight.try_acquire() else {
            self.metrics.limited(Limit::InFlight);
            return Err(Refusal::Busy);
        };
        let time = self.answer_time(source.format);
        let recorded = async {
            proof.check_body(&body.bytes, || self.clock.now()).await?;
            self.record(known, method, headers, body).await
        };
        match tokio::time::timeout(time, recorded).await {
            Ok(answered) => answered,
            Err(_) => {
                self.metrics.limited(Limit::AnswerTime);
                Err(Refusal::Late)
            }
        }
    }

    fn answer_time(&self, format: Format) -> Duration {
        match format {
            Format::Distribution | Format::Gitlab => self.limits.answer_time_impatient,
            _ => self.limits.answer_time,
        }
    }

    /// Answers OPTIONS.
    fn handshake_only(&self, format: Format, headers: &Headers<'_>) -> Result<Answer, Refusal> {
        let parsed = format.parse(&event::Request { method: "OPTIONS", headers, body: b"" });
        let answer = parsed.ok().and_then(|parsed| parsed.handshake).as_ref().and_then(respond::handshake);
        answer.ok_or(Refusal::Method { options: true })
    }

    /// Reads an authentic body and answers once what it says is durable.
    async fn record(
        &self,
        known: &Known,
        method: &Method,
        headers: &Headers<'_>,
        body: Buffered<'_>,
    ) -> Result<Answer, Refusal> {
        let source = &known.source;
        let request = event::Request { method: method.as_str(), headers, body: &body.bytes };
        let mut shaken = None;
        let plan = match source.format.parse(&request) {
            Ok(mut parsed) => {
                shaken = parsed.handshake.take();
                Plan::of(parsed, source)
            }
            Err(fault) => Plan::unreadable(fault.to_string()),
        };
        if let Some(Handshake::Confirm { topic, url }) = &shaken {
            return self.confirm(known, topic, url, headers, &body).await;
        }
        self.admit(known, &plan).await?;
        let tally = self.append(known, plan, headers, &body).await?;
        tracing::debug!(source = %source.name, bytes = body.held(), ?tally, "a request was recorded");
        Ok(shaken.as_ref().and_then(respond::handshake).unwrap_or_else(|| tally.answer()))
    }

    /// Asks whether what a sender is about to do may happen.
    async fn admit(&self, known: &Known, plan: &Plan) -> Result<(), Refusal> {
        let Some(admission) = self.hooks.admission.as_ref().filter(|_| known.source.admission) else { return Ok(()) };
        if !plan.events.iter().any(|(_, event)| event.stage == Stage::Intended) {
            return Ok(());
        }
        match admission.decide(&known.source.name, &plan.events).await.map_err(|error| self.refused(error))? {
            Decision::Allow => Ok(()),
            Decision::Deny { reason } => {
                let reason = reason.chars().filter(|c| !c.is_control()).take(REASON_CHARS_MAX).collect();
                Err(Refusal::Denied { reason })
            }
        }
    }

    /// Has an authentic subscription confirmed.
    async fn confirm(
        &self,
        known: &Known,
        topic: &str,
        url: &str,
        headers: &Headers<'_>,
        body: &Buffered<'_>,
    ) -> Result<Answer, Refusal> {
        if self.hooks.confirm.as_ref().is_some_and(|confirm| confirm.confirm(&known.source.name, topic, url)) {
            known.counters.add(None, EventResult::Ignored, 1);
            return Ok(Tally { ignored: 1, ..Tally::default() }.answer());
        }
        let fault = "a subscription waits to be confirmed: open the address `SubscribeURL` of the body";
        let tally = self.append(known, Plan::unreadable(fault.to_owned()), headers, body).await?;
        Ok(tally.answer())
    }

    /// Hands everything to the store and counts it.
    async fn append(
        &self,
        known: &Known,
        plan: Plan,
        headers: &Headers<'_>,
        body: &Buffered<'_>,
    ) -> Result<Tally, Refusal> {
        let name = &known.source.name;
        let mut tally = Tally { ignored: plan.ignored, dead: plan.dead, ..Tally::default() };
        let received_at = self.clock.now();
        let dead: Vec<_> = plan.dead_letter(name, headers, &body.bytes, received_at).into_iter().collect();
        let fault = dead.first().map(|letter| letter.fault.clone());
        let mut actions: Vec<Action> = Vec::with_capacity(plan.events.len());
        let events: Vec<_> = plan
            .events
            .into_iter()
            .inspect(|(_, event)| actions.push(event.action))
            .map(|(registry, event)| record::incoming(name, registry, event, received_at))
            .collect();
        if !events.is_empty() || !dead.is_empty() {
            failpoint!("intake-before");
            let appended = self.store.append(events, dead).await.map_err(|error| self.refused(error))?;
            failpoint!("intake-appended");
            tally.recorded = u64::from(appended.recorded);
            tally.duplicate = u64::from(appended.duplicate);
        }
        // The store says how many were new, not which: those of a mixed batch are taken in order.
        for (n, action) in actions.into_iter().enumerate() {
            let result = if (n as u64) < tally.recorded { EventResult::Recorded } else { EventResult::Duplicate };
            known.counters.add(Some(action), result, 1);
        }
        known.counters.add(None, EventResult::Ignored, tally.ignored);
        known.counters.add(None, EventResult::Dead, tally.dead);
        if let Some(fault) = fault {
            tracing::warn!(source = %name, fault, "a dead letter was kept; see `tidewaiter dead-letters`");
            if let Some(buried) = &self.hooks.buried {
                buried.buried(name, &fault);
            }
        }
        Ok(tally)
    }

    fn refused(&self, error: StoreError) -> Refusal {
        if !error.is_transient() {
            tracing::error!(%error, "events cannot be recorded");
        }
        if matches!(error, StoreError::Broken(_)) {
            self.must_end.cancel();
        }
        Refusal::Store(error)
    }
}

/// Whether the body is of a kind that is read at all.
fn acceptable(format: Format, fields: &HeaderMap) -> Result<(), Refusal> {
    let encoded =
        fields.get_all(CONTENT_ENCODING).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"));
    let mut types = fields.get_all(CONTENT_TYPE).iter();
    let (content_type, second) = (types.next(), types.next());
    let read = match content_type.map(|value| value.to_str()) {
        // Its custom headers may replace the content type (Azure Container Registry's reference).
        _ if format == Format::Acr => true,
        None => format.accepts(None),
        Some(Ok(text)) => format.accepts(Some(text)),
        Some(Err(_)) => false,
    };
    if encoded || second.is_some() || !read { Err(Refusal::MediaType) } else { Ok(()) }
}
