//! Which addresses may be connected to (T-19). The check is on the address that is used, not on the name: the
//! resolver drops what is refused, and every new connection resolves and checks again.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns::Name;
use tower_service::Service;
use url::Url;

/// What may be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressRule {
    /// Only addresses of the public internet.
    Public,
    /// Loopback and private addresses as well. Link-local, metadata, multicast, documentation and reserved
    /// addresses stay refused: no registry is there.
    Private,
    /// Every address: only for identity services, whose addresses come from the configuration alone and of which
    /// one, the metadata service, is link-local.
    Any,
}

/// A name or an address leads only to addresses that are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` leads only to refused addresses")]
pub struct RefusedAddress(pub String);

/// Metadata services that lie in ranges which may otherwise be reached.
const METADATA: [IpAddr; 3] = [
    // Azure's host channel: a public address that every virtual machine reaches.
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    // Alibaba Cloud, in the shared range.
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    // Amazon, in the unique local range.
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// What an address is, for the rule.
#[derive(PartialEq, Eq)]
enum Kind {
    Public,
    Private,
    Reserved,
}

impl AddressRule {
    /// Whether `address` may be connected to.
    pub fn permits(self, address: IpAddr) -> bool {
        match kind(address) {
            Kind::Public => true,
            Kind::Private => self != AddressRule::Public,
            Kind::Reserved => self == AddressRule::Any,
        }
    }

    /// Refuses an address written in a URL: the resolver is never asked about those.
    pub fn check_literal(self, url: &Url) -> Result<(), RefusedAddress> {
        let literal = match url.host() {
            Some(url::Host::Ipv4(v4)) => IpAddr::V4(v4),
            Some(url::Host::Ipv6(v6)) => IpAddr::V6(v6),
            Some(url::Host::Domain(_)) => return Ok(()),
            None => return Err(RefusedAddress(String::new())),
        };
        if self.permits(literal) { Ok(()) } else { Err(RefusedAddress(literal.to_string())) }
    }
}

/// IANA special-purpose address registries (RFC 6890 and its updates).
fn kind(address: IpAddr) -> Kind {
    if METADATA.contains(&address) {
        return Kind::Reserved;
    }
    match address {
        IpAddr::V4(v4) => kind_v4(v4),
        IpAddr::V6(v6) => kind_v6(v6),
    }
}

fn kind_v4(address: Ipv4Addr) -> Kind {
    match address.octets() {
        [127, ..] | [10, ..] | [192, 168, ..] => Kind::Private,
        [172, b, ..] if b & 0xf0 == 16 => Kind::Private,
        // Shared between carriers and customers (RFC 6598); cloud networks use it for their own ends.
        [100, b, ..] if b & 0xc0 == 64 => Kind::Private,
        // This network; link-local with the metadata services; protocol assignments; documentation; the old
        // 6to4 relay; benchmarks; multicast, reserved and broadcast.
        [0, ..]
        | [169, 254, ..]
        | [192, 0, 0, _]
        | [192, 0, 2, _]
        | [192, 88, 99, _]
        | [198, 18 | 19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _]
        | [224..=255, ..] => Kind::Reserved,
        _ => Kind::Public,
    }
}

fn kind_v6(address: Ipv6Addr) -> Kind {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => Kind::Private,
        [a, ..] if a & 0xfe00 == 0xfc00 => Kind::Private,
        // Teredo and other protocol assignments, documentation, 6to4, documentation again.
        [0x2001, b, ..] if b < 0x200 || b == 0xdb8 => Kind::Reserved,
        [0x2002, ..] | [0x3fff, 0..=0xfff, ..] => Kind::Reserved,
        // Everything outside 2000::/3 is mapped, translated, link-local, multicast or not assigned.
        [a, ..] if a & 0xe000 == 0x2000 => Kind::Public,
        _ => Kind::Reserved,
    }
}

/// The system's resolver, with refused addresses dropped.
#[derive(Debug, Clone, Copy)]
pub struct Resolver {
    rule: AddressRule,
}

impl Resolver {
    /// A resolver under `rule`.
    pub fn new(rule: AddressRule) -> Resolver {
        Resolver { rule }
    }
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let rule = self.rule;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            permitted(rule, name.as_str(), found).map_err(io::Error::other)
        })
    }
}

fn permitted(
    rule: AddressRule,
    name: &str,
    found: impl Iterator<Item = SocketAddr>,
) -> Result<std::vec::IntoIter<SocketAddr>, RefusedAddress> {
    let kept: Vec<SocketAddr> = found.filter(|address| rule.permits(address.ip())).collect();
    if kept.is_empty() { Err(RefusedAddress(name.to_owned())) } else { Ok(kept.into_iter()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t19_reserved_ranges_are_never_reached_and_private_ones_only_by_configuration() {
        for (address, public, private) in [
            ("20.42.66.1", true, true),
            ("2603:1030:20e::1", true, true),
            ("127.0.0.1", false, true),
            ("127.255.255.254", false, true),
            ("10.0.0.5", false, true),
            ("172.16.0.1", false, true),
            ("172.31.255.255", false, true),
            ("172.32.0.1", true, true),
            ("192.168.1.1", false, true),
            ("100.64.0.1", false, true),
            ("100.128.0.1", true, true),
            ("::1", false, true),
            ("fd12:3456::1", false, true),
            ("0.0.0.0", false, false),
            ("0.1.2.3", false, false),
            ("169.254.169.254", false, false),
            ("168.63.129.16", false, false),
            ("100.100.100.200", false, false),
            ("192.0.0.192", false, false),
            ("192.0.2.1", false, false),
            ("198.18.0.1", false, false),
            ("198.51.100.7", false, false),
            ("203.0.113.9", false, false),
            ("192.88.99.1", false, false),
            ("224.0.0.1", false, false),
            ("240.0.0.1", false, false),
            ("255.255.255.255", false, false),
            ("::", false, false),
            ("::ffff:127.0.0.1", false, false),
            ("::ffff:20.42.66.1", false, false),
            ("::7f00:1", false, false),
            ("64:ff9b::7f00:1", false, false),
            ("64:ff9b:1::1", false, false),
            ("100::1", false, false),
            ("2001::1", false, false),
            ("2001:db8::1", false, false),
            ("2002:7f00:1::1", false, false),
            ("3fff::1", false, false),
            ("fe80::1", false, false),
            ("fec0::1", false, false),
            ("ff02::1", false, false),
            ("fd00:ec2::254", false, false),
        ] {
            let ip: IpAddr = address.parse().unwrap();
            assert_eq!(AddressRule::Public.permits(ip), public, "{address} as public");
            assert_eq!(AddressRule::Private.permits(ip), private, "{address} with allowPrivate");
        }
    }

    #[test]
    fn t19_a_name_keeps_only_its_permitted_addresses() {
        let at = |text: &str| -> SocketAddr { text.parse().unwrap() };
        let mixed = [at("10.0.0.1:0"), at("20.42.66.1:0"), at("169.254.169.254:0")];
        let kept: Vec<_> = permitted(AddressRule::Public, "r", mixed.into_iter()).unwrap().collect();
        assert_eq!(kept, [at("20.42.66.1:0")]);
        assert!(permitted(AddressRule::Public, "r", [at("10.0.0.1:0")].into_iter()).is_err());
        assert!(permitted(AddressRule::Private, "r", [].into_iter()).is_err());
    }

    #[test]
    fn t19_addresses_in_any_notation_are_checked() {
        for url in ["http://127.0.0.1/", "http://2130706433/", "http://0x7f.1/", "http://[::1]/", "http://0/"] {
            assert!(AddressRule::Public.check_literal(&Url::parse(url).unwrap()).is_err(), "{url}");
        }
        assert!(AddressRule::Public.check_literal(&Url::parse("https://contoso.azurecr.io/").unwrap()).is_ok());
    }
}
