//! Callers behind a proxy: they come from its address, and what it says of them can only take trust away.

use std::net::{IpAddr, SocketAddr};

use crate::Place;

/// Headers that proxies add.
const MARKS: [&str; 4] = ["x-forwarded-for", "forwarded", "x-real-ip", "via"];

/// Where a request comes from that a proxy has passed on, and from which address if it says so; `None` for one that shows no sign of
/// a proxy. `header` gives the last value of a header. Nobody behind a proxy is on this machine.
pub fn through_proxy(header: impl Fn(&str) -> Option<String>) -> Option<(Place, Option<IpAddr>)> {
    MARKS.iter().find_map(|mark| header(mark))?;
    // The last entry is the one the nearest proxy wrote; those before it may be the caller's own words.
    let nearest = header("x-forwarded-for").or_else(|| header("x-real-ip")).unwrap_or_default();
    let address = address(nearest.rsplit(',').next().unwrap_or_default().trim());
    let place = match address.map(Place::of) {
        Some(Place::Here | Place::Home) => Place::Home,
        _ => Place::BehindProxy,
    };
    Some((place, address))
}

/// An address with or without port and brackets.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[(&str, &str)], expected: Option<(Place, Option<&str>)>) {
        let header = |name: &str| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let expected = expected.map(|(place, address)| (place, address.map(|text| text.parse().unwrap())));
        assert_eq!(through_proxy(header), expected, "{headers:?}");
    }

    #[test]
    fn the_nearest_proxy_is_believed() {
        check(&[], None);
        check(&[("user-agent", "x")], None);
        check(&[("x-forwarded-for", "192.168.1.7")], Some((Place::Home, Some("192.168.1.7"))));
        check(&[("x-forwarded-for", "127.0.0.1")], Some((Place::Home, Some("127.0.0.1"))));
        check(&[("x-forwarded-for", "127.0.0.1, 8.8.8.8")], Some((Place::BehindProxy, Some("8.8.8.8"))));
        check(&[("x-forwarded-for", "8.8.8.8, 10.0.0.2:5000")], Some((Place::Home, Some("10.0.0.2"))));
        check(&[("x-forwarded-for", "[2001:db8::1]:80")], Some((Place::BehindProxy, Some("2001:db8::1"))));
        check(&[("x-real-ip", "fd00::1")], Some((Place::Home, Some("fd00::1"))));
        check(&[("x-forwarded-for", "unknown")], Some((Place::BehindProxy, None)));
        check(&[("via", "1.1 box"), ("user-agent", "x")], Some((Place::BehindProxy, None)));
        check(&[("forwarded", "for=10.0.0.1")], Some((Place::BehindProxy, None)));
    }
}
