//! How many connections there may be: in all, of one address, and of those that have proven nothing yet.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard};

use prometheus::IntGauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Limits;
use crate::metrics::Limit;

/// The count.
pub(super) struct Gate {
    counts: Mutex<Counts>,
    connections: usize,
    per_address: usize,
    fresh: usize,
    handshakes: Arc<Semaphore>,
    gauge: IntGauge,
}

#[derive(Default)]
struct Counts {
    total: usize,
    fresh: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One connection's place; given back when dropped.
pub(super) struct Permit {
    gate: Arc<Gate>,
    address: IpAddr,
    proven: std::sync::atomic::AtomicBool,
}

impl Gate {
    pub(super) fn new(limits: &Limits, gauge: IntGauge) -> Arc<Gate> {
        Arc::new(Gate {
            counts: Mutex::default(),
            connections: limits.connections,
            per_address: limits.connections_per_address,
            fresh: limits.connections_fresh,
            handshakes: Arc::new(Semaphore::new(limits.handshakes)),
            gauge,
        })
    }

    /// A place for a connection of `address`, or the limit that leaves none.
    pub(super) fn enter(self: &Arc<Gate>, address: IpAddr) -> Result<Permit, Limit> {
        let address = network(address);
        let mut counts = self.counts();
        if counts.total >= self.connections {
            return Err(Limit::Connections);
        }
        if counts.fresh >= self.fresh {
            return Err(Limit::ConnectionsFresh);
        }
        let of_address = counts.by_address.entry(address).or_default();
        if *of_address >= self.per_address {
            return Err(Limit::ConnectionsPerAddress);
        }
        *of_address += 1;
        counts.total += 1;
        counts.fresh += 1;
        self.gauge.inc();
        Ok(Permit { gate: self.clone(), address, proven: false.into() })
    }

    /// A place for a handshake, where one is free.
    pub(super) fn handshake(&self) -> Option<OwnedSemaphorePermit> {
        self.handshakes.clone().try_acquire_owned().ok()
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Permit {
    /// A request was answered with success: the connection no longer counts as fresh.
    pub(super) fn prove(&self) {
        if !self.proven.swap(true, std::sync::atomic::Ordering::Relaxed) {
            self.gate.counts().fresh -= 1;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.gate.counts();
        counts.total -= 1;
        if !self.proven.load(std::sync::atomic::Ordering::Relaxed) {
            counts.fresh -= 1;
        }
        if let Some(of_address) = counts.by_address.get_mut(&self.address) {
            *of_address -= 1;
            if *of_address == 0 {
                counts.by_address.remove(&self.address);
            }
        }
        self.gate.gauge.dec();
    }
}

/// What counts as one address: with IPv6 the /64 network, which is what one host is given.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t10_places_are_limited_and_given_back() {
        let limits = Limits { connections: 4, connections_per_address: 2, connections_fresh: 3, ..Limits::default() };
        let gate = Gate::new(&limits, IntGauge::new("a", "b").unwrap());
        let address = |n: u8| IpAddr::from([10, 0, 0, n]);
        let a1 = gate.enter(address(1)).unwrap();
        let a2 = gate.enter(address(1)).unwrap();
        assert_eq!(gate.enter(address(1)).err(), Some(Limit::ConnectionsPerAddress));
        let b = gate.enter(address(2)).unwrap();
        assert_eq!(gate.enter(address(3)).err(), Some(Limit::ConnectionsFresh));
        b.prove();
        b.prove();
        let c = gate.enter(address(3)).unwrap();
        c.prove();
        assert_eq!(gate.enter(address(4)).err(), Some(Limit::Connections));
        drop((a1, a2, b, c));
        assert_eq!(gate.gauge.get(), 0);
        let counts = gate.counts();
        assert_eq!((counts.total, counts.fresh, counts.by_address.len()), (0, 0, 0));
    }

    #[test]
    fn t10_a_host_s_ipv6_addresses_count_as_one() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }
}
