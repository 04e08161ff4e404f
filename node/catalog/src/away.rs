//! What a registry on the internet may lead to: more of the internet, never this machine or its network. An owner who names a
//! registry at home, or a proxy, has said that addresses at home are meant.

use std::net::{IpAddr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::{Attempt, Policy};

/// Redirects that are followed.
const N_REDIRECTS_MAX: usize = 5;

/// Endings of names that only a network at home knows.
const HOME_ENDINGS: [&str; 6] = [".localhost", ".local", ".internal", ".lan", ".home", ".home.arpa"];

/// Follows redirects, unless they leave encryption, or lead home from a registry that is not `at_home`.
pub(crate) fn redirects(at_home: bool) -> Policy {
    Policy::custom(move |attempt: Attempt| {
        let encrypted_before = attempt.previous().last().is_none_or(|url| url.scheme() == "https");
        let host = attempt.url().host_str().unwrap_or_default().to_owned();
        if attempt.previous().len() > N_REDIRECTS_MAX {
            attempt.error("too many redirects")
        } else if encrypted_before && attempt.url().scheme() != "https" {
            attempt.error("the registry leads away from encryption")
        } else if !at_home && !is_public_host(&host) {
            attempt.error("the registry leads to an address at home")
        } else {
            attempt.follow()
        }
    })
}

/// Whether the owner has set a proxy for what leaves the machine.
pub(crate) fn has_proxy() -> bool {
    ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|v| !v.is_empty()))
}

/// Whether a host may be on the internet: a name, or an address that is neither this machine's nor private.
pub(crate) fn is_public_host(host: &str) -> bool {
    match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(address) => is_public(address),
        // A name without a dot means a machine at home.
        Err(_) => host.contains('.') && !HOME_ENDINGS.iter().any(|end| host.ends_with(end)),
    }
}

fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let shared = v4.octets()[0] == 100 && (64..128).contains(&v4.octets()[1]);
            !(v4.is_loopback() || v4.is_private() || v4.is_link_local() || v4.is_unspecified() || v4.is_broadcast() || shared)
        }
        IpAddr::V6(v6) => !(v6.is_loopback() || v6.is_unspecified() || v6.is_unique_local() || v6.is_unicast_link_local()),
    }
}

/// Looks names up and leaves out addresses at home: a name may mean anything its owner likes.
pub(crate) struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let public: Vec<SocketAddr> = found.into_iter().filter(|address| is_public(address.ip())).collect();
            if public.is_empty() {
                return Err(format!("{} has no address on the internet", name.as_str()).into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c07_addresses_at_home() {
        for home in [
            "127.0.0.1",
            "localhost",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.0.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "[::1]",
            "[fd00::1]",
            "[fe80::1]",
            "[::ffff:127.0.0.1]",
            "box.local",
            "metadata.internal",
            "nas",
            "registry.lan",
        ] {
            assert!(!is_public_host(home), "{home}");
        }
        for away in ["registry.ollama.ai", "hf.co", "8.8.8.8", "[2606:4700::1]", "172.32.0.1", "100.128.0.1"] {
            assert!(is_public_host(away), "{away}");
        }
    }

    #[tokio::test]
    async fn c07_a_name_that_means_home_is_not_asked() {
        let name: Name = "localhost".parse().unwrap();
        let error = PublicOnly.resolve(name).await.err().unwrap().to_string();
        assert_eq!(error, "localhost has no address on the internet");
    }
}
