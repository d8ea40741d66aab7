//! One sink: what it is sent, and what its answer means. One place where an answer becomes delivered, try
//! again, or refused for good.

use std::time::Duration;

use jiff::Timestamp;
use tokio::task::JoinSet;

use super::http::{Answer, Outgoing, SendError, Transport};
use super::message::Alert;
use super::settings::{Links, SettingsError, SinkKind, SinkSettings, Target};
use super::summary::Summary;
use super::{alertmanager, pagerduty, slack, teams, text, webhook};

/// How much of an answer goes into logs and messages.
const WHY_UNITS_MAX: usize = 200;

/// What became of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sent {
    /// The sink has it.
    Delivered,
    /// Not now; perhaps later.
    Retry {
        why: String,
        /// Not before this has passed, as the sink asked.
        after: Option<Duration>,
    },
    /// Never.
    Refused { why: String },
}

/// A sink with the way to it.
pub(super) struct Sink<T> {
    pub settings: SinkSettings,
    links: Links,
    transport: std::sync::Arc<T>,
    /// Where to post: several for a cluster of Alertmanagers.
    targets: Vec<Target>,
}

impl<T: Transport> Sink<T> {
    pub fn new(settings: SinkSettings, links: Links, transport: T) -> Result<Sink<T>, SettingsError> {
        let targets = match &settings.kind {
            SinkKind::Alertmanager { urls, .. } => {
                urls.iter().map(|url| url.join(alertmanager::PATH)).collect::<Result<Vec<_>, _>>()?
            }
            SinkKind::Slack { url } | SinkKind::Teams { url } => vec![url.clone()],
            SinkKind::PagerDuty { url, .. } | SinkKind::Webhook { url, .. } => vec![url.clone()],
        };
        if targets.is_empty() {
            return Err(SettingsError::Missing("at least one address"));
        }
        Ok(Sink { settings, links, transport: transport.into(), targets })
    }

    /// Sends these alerts once: several only to an Alertmanager, or as a summary for people.
    pub async fn send(&self, alerts: &[Alert], now: Timestamp) -> Sent {
        let Some(first) = alerts.first() else { return Sent::Delivered };
        let mut headers = Vec::new();
        let (content_type, body) = match &self.settings.kind {
            SinkKind::Alertmanager { auth, .. } => {
                headers.extend(authorization(auth.as_ref()));
                ("application/json", alertmanager::body(alerts, &self.links, now))
            }
            SinkKind::Slack { .. } => ("application/json; charset=utf-8", self.slack(alerts, first)),
            SinkKind::Teams { .. } => ("application/json", self.teams(alerts, first)),
            SinkKind::PagerDuty { routing_key, .. } => {
                ("application/json", pagerduty::body(first, routing_key, &self.links))
            }
            SinkKind::Webhook { keys, auth, source, .. } => {
                let body = webhook::body(first, source);
                headers.extend(webhook::signature_headers(keys, &first.id, now, &body));
                headers.extend(authorization(auth.as_ref()));
                (webhook::CONTENT_TYPE, body)
            }
        };
        let body = hyper::body::Bytes::from(body);
        let outgoing = |target: &Target| Outgoing {
            target: target.clone(),
            content_type,
            headers: headers.clone(),
            body: body.clone(),
        };
        match self.targets.as_slice() {
            [only] => self.judge(self.transport.send(outgoing(only)).await),
            all => self.to_all(all.iter().map(outgoing).collect()).await,
        }
    }

    /// Every member of a cluster is told; one that has it passes it on, and the others hear it by the refresh.
    async fn to_all(&self, requests: Vec<Outgoing>) -> Sent {
        let mut attempts = JoinSet::new();
        for request in requests {
            let transport = self.transport.clone();
            attempts.spawn(async move { transport.send(request).await });
        }
        let mut verdicts = Vec::new();
        while let Some(attempt) = attempts.join_next().await {
            if let Ok(answer) = attempt {
                verdicts.push(self.judge(answer));
            }
        }
        for fault in &verdicts {
            if let Sent::Retry { why, .. } | Sent::Refused { why } = fault {
                tracing::debug!(sink = %self.settings.name, %why, "one of several addresses did not take it");
            }
        }
        let best = |verdict: &Sent| match verdict {
            Sent::Delivered => 0,
            Sent::Retry { .. } => 1,
            Sent::Refused { .. } => 2,
        };
        let none = Sent::Retry { why: "no attempt came to an end".to_owned(), after: None };
        verdicts.into_iter().min_by_key(best).unwrap_or(none)
    }

    fn slack(&self, alerts: &[Alert], first: &Alert) -> Vec<u8> {
        if alerts.len() == 1 {
            slack::body(first, &self.links)
        } else {
            slack::summary(&Summary::of(alerts), &self.links)
        }
    }

    fn teams(&self, alerts: &[Alert], first: &Alert) -> Vec<u8> {
        if alerts.len() == 1 {
            teams::body(first, &self.links)
        } else {
            teams::summary(&Summary::of(alerts), &self.links)
        }
    }

    fn judge(&self, answer: Result<Answer, SendError>) -> Sent {
        let answer = match answer {
            Ok(answer) => answer,
            Err(SendError::Settings(fault)) => return Sent::Refused { why: fault.to_string() },
            Err(fault) => return Sent::Retry { why: fault.to_string(), after: None },
        };
        let delivered = match self.settings.kind {
            SinkKind::Slack { .. } => slack::is_delivered(&answer),
            _ => answer.status.is_success(),
        };
        if delivered {
            return Sent::Delivered;
        }
        let why = match answer.status.is_success() {
            // A page of something else, or a proxy's.
            true => format!("{}, and not with the `ok` that Slack answers", why(&answer)),
            false => why(&answer),
        };
        match answer.status.as_u16() {
            408 | 429 => Sent::Retry { why, after: answer.retry_after },
            // 410 of a webhook means that nobody wants them any more; it is final like the others.
            400..=499 => Sent::Refused { why },
            // A redirect is never followed (T-56). It is not final: whoever moved the sink may move it back,
            // and what waits is not lost meanwhile.
            _ => Sent::Retry { why, after: answer.retry_after },
        }
    }
}

fn authorization(
    auth: Option<&super::settings::Auth>,
) -> Option<(hyper::header::HeaderName, hyper::header::HeaderValue)> {
    Some((hyper::header::AUTHORIZATION, auth?.header()?))
}

fn why(answer: &Answer) -> String {
    let said = answer.body.trim();
    if said.is_empty() {
        format!("it answered {}", answer.status.as_u16())
    } else {
        format!("it answered {}: {}", answer.status.as_u16(), text::fit(said, WHY_UNITS_MAX, text::plain))
    }
}
