//! Who may do what from where: open to use, closed to change.

use std::net::IpAddr;

/// What a route lets a caller do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Ask models, and see which there are.
    Use,
    /// Change which models there are.
    Change,
}

/// How far a caller's token reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    Read,
    Write,
    Admin,
}

/// The owner's choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Use is open at home, change is for this machine's user and for tokens.
    #[default]
    Standard,
    /// Everything wants a token, also on this machine.
    Tokens,
    /// Everything is open to everybody who reaches the port, as with servers that know no tokens.
    Open,
}

/// Where a caller is, the most trusted first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// On this machine.
    Here,
    /// In a private network.
    Home,
    /// Wherever a proxy of the owner lets people come from.
    BehindProxy,
    Elsewhere,
}

/// What a caller is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Allowed,
    /// A token that reaches this far is wanted.
    NeedsToken(Reach),
    /// The token does not reach this far.
    TooWeak(Reach),
    /// Not from where the caller is.
    Refused,
}

impl Place {
    /// The place of an address. An IPv4 address written as IPv6 is what it is as IPv4.
    pub fn of(address: IpAddr) -> Place {
        match address.to_canonical() {
            address if address.is_loopback() => Place::Here,
            IpAddr::V4(v4) if v4.is_private() || v4.is_link_local() => Place::Home,
            IpAddr::V6(v6) if v6.is_unique_local() || v6.is_unicast_link_local() => Place::Home,
            _ => Place::Elsewhere,
        }
    }
}

/// What stands for a client's machine: its address, of which an IPv6 host has as many as it likes below its network's 64 bits.
pub fn host_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        // Neighbours: they share these 64 bits.
        IpAddr::V6(v6) if v6.is_unique_local() || v6.is_unicast_link_local() => IpAddr::V6(v6),
        IpAddr::V6(v6) if !v6.is_loopback() => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
        other => other,
    }
}

impl Mode {
    /// The mode of a name.
    pub fn named(name: &str) -> Option<Mode> {
        match name {
            "" | "standard" => Some(Mode::Standard),
            "tokens" => Some(Mode::Tokens),
            "open" => Some(Mode::Open),
            _ => None,
        }
    }

    /// Decides about a caller at `place`, with a valid token or none. A page in a browser speaks for whoever wrote it and not for
    /// this machine's user.
    pub fn decide(self, need: Need, place: Place, from_browser: bool, token: Option<Reach>) -> Verdict {
        let wanted = match need {
            Need::Use => Reach::Read,
            Need::Change => Reach::Write,
        };
        match self {
            Mode::Open => return Verdict::Allowed,
            _ if place == Place::Elsewhere => return Verdict::Refused,
            Mode::Standard if place == Place::BehindProxy => return Verdict::Refused,
            Mode::Standard if need == Need::Use => return Verdict::Allowed,
            Mode::Standard if place == Place::Here && !from_browser => return Verdict::Allowed,
            Mode::Standard | Mode::Tokens => {}
        }
        match token {
            Some(reach) if reach >= wanted => Verdict::Allowed,
            Some(_) => Verdict::TooWeak(wanted),
            None => Verdict::NeedsToken(wanted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d11_places() {
        let check = |text: &str, expected| assert_eq!(Place::of(text.parse().unwrap()), expected, "{text}");
        check("127.0.0.1", Place::Here);
        check("127.9.9.9", Place::Here);
        check("::1", Place::Here);
        check("::ffff:127.0.0.1", Place::Here);
        check("192.168.1.7", Place::Home);
        check("10.0.0.1", Place::Home);
        check("172.31.0.1", Place::Home);
        check("169.254.1.1", Place::Home);
        check("::ffff:192.168.1.7", Place::Home);
        check("fe80::1", Place::Home);
        check("fd00::1", Place::Home);
        check("172.32.0.1", Place::Elsewhere);
        check("8.8.8.8", Place::Elsewhere);
        check("2001:db8::1", Place::Elsewhere);
        check("::ffff:8.8.8.8", Place::Elsewhere);
    }

    #[test]
    fn d11_one_host_for_all_its_addresses() {
        let check = |text: &str, expected: &str| assert_eq!(host_of(text.parse().unwrap()).to_string(), expected, "{text}");
        check("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::");
        check("::1", "::1");
        check("fe80::1:2:3:4", "fe80::1:2:3:4");
        check("fd00::1:2:3:4", "fd00::1:2:3:4");
        check("::ffff:192.168.1.7", "192.168.1.7");
        check("10.0.0.1", "10.0.0.1");
    }

    #[test]
    fn open_to_use_closed_to_change() {
        use {Mode::*, Need::*, Place::*, Verdict::*};
        let check = |mode: Mode, need, place, browser, token, expected| {
            assert_eq!(mode.decide(need, place, browser, token), expected, "{mode:?} {need:?} {place:?} {browser} {token:?}");
        };
        for place in [Here, Home] {
            check(Standard, Use, place, true, None, Allowed);
            check(Standard, Change, place, true, None, NeedsToken(Reach::Write));
            check(Standard, Change, place, true, Some(Reach::Write), Allowed);
            check(Tokens, Use, place, false, None, NeedsToken(Reach::Read));
            check(Tokens, Use, place, false, Some(Reach::Read), Allowed);
            check(Tokens, Change, place, false, Some(Reach::Read), TooWeak(Reach::Write));
            check(Tokens, Change, place, false, Some(Reach::Admin), Allowed);
        }
        check(Standard, Change, Here, false, None, Allowed);
        check(Standard, Change, Home, false, None, NeedsToken(Reach::Write));
        check(Standard, Change, Home, false, Some(Reach::Read), TooWeak(Reach::Write));
        for mode in [Standard, Tokens] {
            check(mode, Use, Elsewhere, false, Some(Reach::Admin), Refused);
        }
        check(Open, Change, Elsewhere, true, None, Allowed);
    }
}
