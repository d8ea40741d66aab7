//! The doctor's look at sinks: whether each can be reached over verified TLS, and, when asked, whether it takes a message.

use std::error::Error;
use std::io;
use std::time::Duration;

use tower_service::Service as _;
use url::Url;

use super::registries::speaks_http;
use super::{Findings, State};
use crate::alert::{Links, send_test};
use crate::app::sink_settings;
use crate::clock::{Clock, SystemClock};
use crate::config::{Sink, SinkAuth, SinkKind};
use crate::registry::{AddressRule, Resolver, Scheme, connector};
use crate::report::visible;

/// How long a sink may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);

pub(super) async fn look(sink: &Sink, test: bool, found: &mut Findings) {
    let auth = match &sink.auth {
        SinkAuth::Bearer(secret) | SinkAuth::Basic { password: secret, .. } => Some(secret),
        SinkAuth::None => None,
    };
    let keys = match &sink.kind {
        SinkKind::PagerDuty(key) => std::slice::from_ref(key),
        SinkKind::Webhook(keys) => keys,
        SinkKind::Alertmanager | SinkKind::Slack | SinkKind::Teams => &[],
    };
    // What cannot be read has been told; where the address can, the way there is tried all the same.
    if sink.urls.iter().any(|url| url.expose().is_empty()) {
        let message = format!("`{}` was not tried, since its address cannot be read", sink.name);
        found.add("sink", State::Warning, message, "mend the secret, and ask the doctor again");
        return;
    }
    let unread = auth.into_iter().chain(keys).any(|secret| secret.expose().is_empty());
    if unread {
        return reached(sink, found).await;
    }
    let settings = match sink_settings(sink) {
        Ok(settings) => settings,
        Err(error) => {
            found.add("sink", State::Fault, format!("`{}`: {error:#}", sink.name), "mend its settings");
            return;
        }
    };
    if test {
        let links = match Links::new(None, None) {
            Ok(links) => links,
            Err(error) => return found.add("sink", State::Fault, error.to_string(), ""),
        };
        match send_test(&settings, &links, SystemClock.now()).await {
            Ok(()) => found.ok("sink", format!("`{}` took a test message", sink.name)),
            Err(error) => {
                found.add("sink", State::Fault, visible(&error.to_string()), "check its address and credential")
            }
        }
        return;
    }
    reached(sink, found).await;
}

/// Whether the sink accepts connections.
async fn reached(sink: &Sink, found: &mut Findings) {
    let ca = match sink.ca.as_deref().map(std::fs::read).transpose() {
        Ok(ca) => ca,
        Err(error) => {
            found.add("sink", State::Fault, format!("`{}`: `ca`: {error}", sink.name), "mend its settings");
            return;
        }
    };
    for url in &sink.urls {
        match reach(url.expose(), ca.as_deref()).await {
            Ok(()) => found.ok("sink", format!("`{}` accepts connections; --send-test sends a message", sink.name)),
            Err(Unreached { why, advice }) => {
                found.add("sink", State::Fault, format!("`{}` cannot be reached: {why}", sink.name), advice);
            }
        }
    }
}

/// Why a sink was not reached, and what to do.
struct Unreached {
    why: String,
    advice: &'static str,
}

/// Opens and closes a connection, with TLS where the address says so. The address may be a secret: only its fault is
/// told.
async fn reach(url: &str, ca: Option<&[u8]>) -> Result<(), Unreached> {
    let network = |why: String| Unreached { why, advice: "check its address and the network" };
    // Everything after the host may be a secret, and is not needed here.
    let url = Url::parse(url).ok().filter(Url::has_host);
    let url = url.ok_or_else(|| network("its address cannot be read".to_owned()))?;
    let origin = url.origin().ascii_serialization();
    let uri = format!("{origin}/").parse().map_err(|_| network("its address cannot be read".to_owned()))?;
    let mut connector = connector(Resolver::new(AddressRule::Any), ca, Scheme::Http)
        .map_err(|error| Unreached { why: error.to_string(), advice: "mend `ca` of this sink" })?;
    match tokio::time::timeout(CONNECT, connector.call(uri)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => {
            let (why, tls) = deepest(&*error);
            let why = match url.port_or_known_default() {
                Some(port) if !tls => format!("{why} (port {port})"),
                _ if speaks_http(&why) => "it answers plain HTTP, not TLS".to_owned(),
                _ => why,
            };
            let advice = if why.contains("plain HTTP") {
                "set the port where it speaks TLS, or write http, which is for addresses without a secret"
            } else if tls {
                "set `ca` of this sink to its authority's certificate, or renew the sink's certificate"
            } else {
                "check its address and the network"
            };
            Err(Unreached { why: visible(&why), advice })
        }
        Err(_) => Err(network(format!("no connection within {} s", CONNECT.as_secs()))),
    }
}

/// The cause below all others, and whether it is one of TLS. An `io::Error` hides its inner error from `source`.
fn deepest(error: &(dyn Error + 'static)) -> (String, bool) {
    let mut at = error;
    loop {
        if at.is::<rustls::Error>() {
            return (at.to_string(), true);
        }
        let inner = at.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        match inner.map(|inner| inner as &(dyn Error + 'static)).or(at.source()) {
            Some(next) => at = next,
            None => return (at.to_string(), false),
        }
    }
}
