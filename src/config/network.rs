//! How ossfs reaches stores: through a proxy, and with certificates of a private authority.

use crate::text::is_host_name;

/// The most hosts without proxy.
const MOST_HOSTS: usize = 64;

/// The proxy in `text`. It has no user and no password: ossfs's environment is no place for one.
pub(super) fn parse_proxy(text: &str) -> Result<String, String> {
    let authority = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"));
    let (host, port) = authority
        .and_then(|authority| authority.split_once(':'))
        .unwrap_or_default();
    let is_port =
        port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
    if !is_host_name(host) || !is_port {
        // The text may have a password in it.
        return Err(
            "it is not a proxy: http://host:port or https://host:port is expected, without user and \
             password"
                .to_owned(),
        );
    }
    Ok(text.to_owned())
}

/// `hosts` in the form of the variable `no_proxy` (CURLOPT_NOPROXY(3)): a name stands for all below
/// it, too.
pub(super) fn parse_no_proxy(hosts: &[String]) -> Result<String, String> {
    if hosts.len() > MOST_HOSTS {
        return Err(format!("more than {MOST_HOSTS} hosts"));
    }
    for host in hosts {
        if !is_host_name(host.strip_prefix('.').unwrap_or(host)) {
            return Err(format!(
                "{host:?} is not a host: a name, \".\" and a domain, or an IPv4 address is expected"
            ));
        }
    }
    Ok(hosts.join(","))
}

#[cfg(test)]
mod tests {
    use super::{parse_no_proxy, parse_proxy};

    #[test]
    fn a_proxy_is_a_scheme_a_host_and_a_port() {
        for good in ["http://proxy.example:3128", "https://10.0.0.1:8080"] {
            assert_eq!(parse_proxy(good).as_deref(), Ok(good));
        }
        for bad in [
            "",
            "proxy.example:3128",
            "http://proxy.example",
            "http://proxy.example:0",
            "http://proxy.example:3128/",
            "http://user:topsecret@proxy.example:3128",
            "socks5://proxy.example:1080",
            "http://a b:1",
            "http://a:+1",
        ] {
            let error = parse_proxy(bad).unwrap_err();
            assert!(error.starts_with("it is not a proxy"), "{bad}: {error}");
            assert!(!error.contains("topsecret"));
        }
    }

    #[test]
    fn hosts_without_proxy_are_names_or_addresses() {
        let hosts = |hosts: &[&str]| {
            let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
            parse_no_proxy(&hosts)
        };
        assert_eq!(
            hosts(&["a.example", ".b.example", "10.0.0.1"]).as_deref(),
            Ok("a.example,.b.example,10.0.0.1")
        );
        assert_eq!(hosts(&[]).as_deref(), Ok(""));
        for bad in ["", ".", "a,b", "*.example", "http://a", "a b", "10.0.0.0/8"] {
            assert!(hosts(&[bad]).is_err(), "{bad}");
        }
        assert!(hosts(&["a"; 65]).is_err());
    }
}
