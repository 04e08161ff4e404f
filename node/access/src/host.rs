//! The Host rule: a page that points its own name at this machine's address (DNS rebinding) is not served.

use std::net::IpAddr;

/// Whether the server answers to this `Host` header (with or without port): nothing, `localhost`, this machine's name, names
/// the owner added, names that only exist locally, and addresses.
pub fn host_allowed(host: &str, own_name: &str, added: &[String]) -> bool {
    let name = without_port(host).to_ascii_lowercase();
    if name.is_empty()
        || name == "localhost"
        || !own_name.is_empty() && name.eq_ignore_ascii_case(own_name)
        || added.iter().any(|added| name.eq_ignore_ascii_case(added))
    {
        return true;
    }
    // No page can make an address mean another machine.
    name.parse::<IpAddr>().is_ok() || [".localhost", ".local", ".internal"].iter().any(|suffix| name.ends_with(suffix))
}

fn without_port(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, _)) => v6,
        None => match host.split_once(':') {
            Some((name, port)) if !port.contains(':') => name,
            _ => host,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(host: &str, expected: bool) {
        assert_eq!(host_allowed(host, "mybox", &["ai.example.org".to_owned()]), expected, "{host}");
    }

    #[test]
    fn local_names_and_addresses_pass() {
        for host in [
            "",
            "localhost",
            "localhost:11434",
            "MyBox",
            "ai.example.org:443",
            "foo.local:80",
            "a.internal",
            "x.localhost",
            "127.0.0.1:11434",
            "192.168.1.5",
            "[::1]:11434",
            "::1",
            "0.0.0.0",
            "8.8.8.8",
            "[2001:db8::1]:80",
        ] {
            check(host, true);
        }
        for host in ["evil.example", "evil.example:11434", "local", "localhost.evil.example", "1.2.3", "8.8.8.8.evil.example"] {
            check(host, false);
        }
    }
}
