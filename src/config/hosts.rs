//! [`HostName`] and [`Hosts`]: names under which a node is asked for, and those it answers to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest name of a host, in bytes, as DNS has it.
const NAME_BYTES_MAX: usize = 255;

/// A host as a client names it: a name or an address, with or without a port.
///
/// Two that lead to the same place are equal: names in small letters and without the dot at their
/// end, addresses as numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostName {
    name: Name,
    /// As it was said; without one the scheme says which.
    pub port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Name {
    Dns(String),
    Address(IpAddr),
}

impl HostName {
    /// Reads what `Host`, `:authority` and the end of an `Origin` say; `None` if that is no host.
    pub fn read(text: &str) -> Option<HostName> {
        let (name, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']')?;
                // Link-local addresses come with the name of an interface.
                let address = address.split('%').next().unwrap_or_default();
                let address = IpAddr::V6(address.parse::<Ipv6Addr>().ok()?);
                (Name::Address(address.to_canonical()), port)
            }
            None => {
                let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
                let name = name.strip_suffix('.').unwrap_or(name);
                let is_of_a_name = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
                let fits = (1..=NAME_BYTES_MAX).contains(&name.len())
                    && name.bytes().all(is_of_a_name)
                    && name.split('.').all(|label| !label.is_empty());
                if !fits {
                    return None;
                }
                let address = name.parse::<Ipv4Addr>().ok().map(|ip| Name::Address(ip.into()));
                (address.unwrap_or_else(|| Name::Dns(name.to_ascii_lowercase())), port)
            }
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            None => return None,
            // Empty is allowed, and says as much as none (RFC 3986 §3.2.3).
            Some("") => None,
            Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => Some(port.parse().ok()?),
            Some(_) => return None,
        };
        Some(HostName { name, port })
    }

    /// Whether this leads to the machine on which it is said, whoever is asked about it: no name
    /// server can give such a name to somebody else.
    pub fn is_loopback(&self) -> bool {
        match &self.name {
            Name::Address(address) => address.is_loopback(),
            Name::Dns(name) => name == "localhost" || name.ends_with(".localhost"),
        }
    }

    /// Whether both are the same place, where a scheme has this port of its own.
    pub fn is_same(&self, other: &HostName, port_of_scheme: u16) -> bool {
        let port = |host: &HostName| host.port.unwrap_or(port_of_scheme);
        self.name == other.name && port(self) == port(other)
    }
}

/// The hosts to which a node answers, besides the names of its own machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hosts {
    /// Whatever it is called.
    Any,
    /// These; one without a port means all its ports.
    Only(Vec<HostName>),
}

impl Hosts {
    /// Reads a list such as `app.example,events.example:8443`, or `*`.
    ///
    /// # Errors
    /// What would be right.
    pub fn read(text: &str) -> Result<Hosts, String> {
        if text.trim() == "*" {
            return Ok(Hosts::Any);
        }
        let hosts: Option<_> = text.split(',').map(|host| HostName::read(host.trim())).collect();
        hosts.map(Hosts::Only).ok_or_else(|| {
            "must be * or hosts such as app.example,events.example:8443,10.0.0.7".to_owned()
        })
    }

    /// Whether this host is among them. Without a port, what a client names is the port of its
    /// scheme, 80 or 443.
    pub fn has(&self, host: &HostName) -> bool {
        let Hosts::Only(hosts) = self else { return true };
        hosts.iter().any(|listed| match listed.port {
            None => listed.name == host.name,
            Some(_) => [80, 443].iter().any(|port| listed.is_same(host, *port)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_machine_are_known_however_they_are_written() {
        for own in [
            "localhost",
            "LOCALHOST:3000",
            "localhost.",
            "localhost.:80",
            "app.localhost",
            "a.b.LocalHost.:1",
            "127.0.0.1",
            "127.1.2.3:3000",
            "127.0.0.1.",
            "[::1]",
            "[::1]:3000",
            "[0:0:0:0:0:0:0:1]",
            "[::ffff:127.0.0.1]:80",
            "localhost:",
        ] {
            assert!(HostName::read(own).is_some_and(|host| host.is_loopback()), "{own}");
        }
        for other in [
            "attacker.example",
            "localhost.attacker.example",
            "localhost.attacker.example:3000",
            "notlocalhost",
            "127.0.0.1.attacker.example",
            "127.0.0.1.nip.io",
            "128.0.0.1",
            "10.0.0.7:3000",
            "0.0.0.0:3000",
            "[::]:3000",
            "[fe80::1%25lo]",
            "[::2]",
            // As numbers of other kinds no browser says them.
            "2130706433",
            "0x7f.1",
            "127.1",
        ] {
            assert!(HostName::read(other).is_some_and(|host| !host.is_loopback()), "{other}");
        }
        for nothing in [
            "",
            ".",
            ":3000",
            "localhost..",
            "a..b",
            "localhost:x",
            "localhost:+1",
            "localhost:1:2",
            "localhost:99999",
            "[::1",
            "[::1]x",
            "::1",
            "a b",
            "a,b",
            "u@localhost",
            "local%68ost",
            "löcalhost",
        ] {
            assert_eq!(HostName::read(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn a_list_means_the_ports_it_names_or_all() {
        let hosts =
            Hosts::read("App.example, events.example:8443,10.0.0.7,tls.example:443").unwrap();
        let has = |host: &str| hosts.has(&HostName::read(host).unwrap());
        for served in [
            "app.example",
            "APP.example.:3000",
            "events.example:8443",
            "10.0.0.7:1",
            "tls.example",
            "tls.example:443",
        ] {
            assert!(has(served), "{served}");
        }
        for other in ["events.example", "a.app.example", "example", "10.0.0.70", "tls.example:80"] {
            assert!(!has(other), "{other}");
        }
        assert_eq!(Hosts::read(" * "), Ok(Hosts::Any));
        for wrong in ["", "a,,b", "https://a.example", "*.example", "a/b", "a,"] {
            assert!(Hosts::read(wrong).is_err(), "{wrong:?}");
        }
    }
}
