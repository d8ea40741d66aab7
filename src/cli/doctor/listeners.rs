//! The doctor's look at the listeners: whether their addresses can be listened on, and whether senders reach them.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};

use super::{Findings, State};
use crate::config::Config;

/// Looks at both addresses; those of a running daemon are taken, by that daemon.
pub(super) fn look(config: &Config, in_use: bool, found: &mut Findings) {
    let (events, admin) = (config.listen.events, config.listen.admin);
    let before = found.list.len();
    if meet(events, admin) {
        found.add(
            "listener",
            State::Fault,
            format!("`listen.events` ({events}) and `listen.admin` ({admin}) are one address"),
            "give them different ports",
        );
    }
    for (setting, address) in [("listen.events", events), ("listen.admin", admin)] {
        if in_use {
            continue;
        }
        let Err(error) = TcpListener::bind(address) else { continue };
        let (why, advice) = match error.kind() {
            ErrorKind::AddrInUse => (
                "another program listens there already".to_owned(),
                format!("stop it, or set `{setting}` to another port"),
            ),
            ErrorKind::PermissionDenied => (
                "ports below 1024 need a right that this user lacks".to_owned(),
                format!("set `{setting}` to a port from 1024 on, or give the daemon CAP_NET_BIND_SERVICE"),
            ),
            ErrorKind::AddrNotAvailable => (
                "this machine does not have the address".to_owned(),
                format!("set `{setting}` to an address of this machine, or to 0.0.0.0 for all of them"),
            ),
            _ => (error.to_string(), format!("set `{setting}` to another address")),
        };
        found.add("listener", State::Fault, format!("`{setting}`: cannot listen on {address}: {why}"), advice);
    }
    if found.list.len() > before {
        return;
    }
    let elsewhere = config.registries.iter().find(|r| !r.host.is_loopback());
    match elsewhere {
        Some(registry) if events.ip().is_loopback() && !config.sources.is_empty() => found.add(
            "listener",
            State::Warning,
            format!("events are taken at {events} only, where {} cannot reach it", registry.host),
            "set `listen.events` to an address that senders reach, or put a proxy before it",
        ),
        _ => found.ok("listener", format!("events at {events}, admin at {admin}")),
    }
}

/// Whether two addresses cannot be listened on at once.
fn meet(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && a.port() != 0 && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}
