//! The doctor's look at certificates: those of the listeners, and the authorities that registries and sinks are
//! verified by.

use std::path::Path;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use x509_parser::pem::Pem;

use super::{Findings, State};
use crate::app::tls_files;
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::listen::Tls;
use crate::metrics::{Listener, Metrics};

/// When a certificate is near its end: the usual renewal is at thirty days.
const SOON: SignedDuration = SignedDuration::from_hours(30 * 24);
/// What is to be done about a certificate of ours.
const RENEW: &str = "renew it; a changed file is read at once";

pub(super) fn look(config: &Config, found: &mut Findings) {
    let configured = [("events", &config.tls, Listener::Events), ("admin", &config.admin.tls, Listener::Admin)];
    for (name, tls, listener) in configured {
        let Some(tls) = tls else { continue };
        let Ok(metrics) = Metrics::new() else { continue };
        let what = format!("{name}: {}", tls.certificate.display());
        match Tls::load(tls_files(tls), listener, Arc::new(metrics), Arc::new(SystemClock)) {
            Ok(loaded) => left(what, loaded.expires(), RENEW, found),
            Err(error) => {
                found.add("certificate", State::Fault, format!("{name}: {error}"), "mend the files named under `tls`");
            }
        }
    }
    if config.tls.is_none() {
        self_signed(config, found);
    }
    let registries =
        config.registries.iter().filter_map(|r| Some((format!("authority of {}", r.host), r.ca.as_ref()?)));
    let sinks = config.sinks.iter().filter_map(|s| Some((format!("authority of sink `{}`", s.name), s.ca.as_ref()?)));
    for (whose, file) in registries.chain(sinks) {
        let what = format!("{whose}: {}", file.display());
        // A file that cannot be read is told with what it is for.
        if let Some(end) = first_end(file) {
            left(what, end, "get the authority's new certificate", found);
        }
    }
}

fn left(what: String, end: Timestamp, advice: &str, found: &mut Findings) {
    let left = end.duration_since(SystemClock.now());
    let days = left.as_hours() / 24;
    if left.is_negative() {
        found.add("certificate", State::Fault, format!("{what} has expired"), advice);
    } else if left < SOON {
        found.add("certificate", State::Warning, format!("{what} ends in {days} days"), advice);
    } else {
        found.ok("certificate", format!("{what} is good for {days} days"));
    }
}

fn self_signed(config: &Config, found: &mut Findings) {
    let folder = config.state_folder();
    let place = if folder.as_os_str().is_empty() {
        "the working directory".to_owned()
    } else {
        format!("`{}`", folder.display())
    };
    let days = first_end(&folder.join("server.crt"))
        .map(|end| format!(", good for {} days", end.duration_since(SystemClock.now()).as_hours() / 24))
        .unwrap_or_default();
    found.add(
        "certificate",
        State::Warning,
        format!("events: self-signed, kept in {place}{days}; the daemon renews it"),
        "set `tls`, or give senders `ca.crt` from there to trust: public services will not",
    );
}

/// When the first of a file's certificates ends.
fn first_end(file: &Path) -> Option<Timestamp> {
    let pem = std::fs::read(file).ok()?;
    let ends = Pem::iter_from_buffer(&pem).filter_map(|block| {
        let block = block.ok()?;
        let certificate = block.parse_x509().ok()?;
        Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
    });
    ends.min()
}
