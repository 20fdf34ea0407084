//! The hosts that `allowedEndpoints` of the node configuration names, read once: a pattern that could
//! be meant otherwise than it works is an error of the configuration.

use crate::text::{is_host_name, is_numeric_host};
use std::net::Ipv4Addr;

/// Hosts that a volume may name as its endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AllowedHost {
    /// `*`
    Any,
    /// One host, a name in lower case or an IPv4 address.
    Host(String),
    /// `*.domain`: every name below the domain, at any depth, and not the domain itself. The text
    /// begins with the dot and is in lower case.
    Below(String),
}

impl AllowedHost {
    /// The hosts of `text`. The error says which forms there are.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let refused = || {
            format!(
                "{text:?} is not a host, \"*.\" and a domain, or \"*\" (without a scheme, port or path)"
            )
        };
        let is_name = |name: &str| is_host_name(name) && !is_numeric_host(name);
        let lower = text.to_ascii_lowercase();
        match lower.strip_prefix("*.") {
            Some(domain) if is_name(domain) => Ok(Self::Below(format!(".{domain}"))),
            Some(_) => Err(refused()),
            None if lower == "*" => Ok(Self::Any),
            None if is_name(&lower) || lower.parse::<Ipv4Addr>().is_ok() => Ok(Self::Host(lower)),
            None => Err(refused()),
        }
    }

    /// Whether `host`, in lower case, is one of these.
    pub(crate) fn contains(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Host(allowed) => host == allowed,
            Self::Below(domain) => host.len() > domain.len() && host.ends_with(domain.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::AllowedHost;

    #[test]
    fn a_pattern_means_whole_labels() {
        for (pattern, host, expected) in [
            ("*", "anything.example", true),
            ("oss.example", "oss.example", true),
            ("OSS.example", "oss.example", true),
            ("oss.example", "a.oss.example", false),
            ("10.0.0.1", "10.0.0.1", true),
            ("*.aliyuncs.com", "oss-cn-a.aliyuncs.com", true),
            ("*.Aliyuncs.com", "a.b.aliyuncs.com", true),
            ("*.aliyuncs.com", "aliyuncs.com", false),
            ("*.aliyuncs.com", ".aliyuncs.com", false),
            ("*.aliyuncs.com", "evilaliyuncs.com", false),
            ("*.aliyuncs.com", "aliyuncs.com.evil.example", false),
        ] {
            let hosts = AllowedHost::parse(pattern).unwrap();
            assert_eq!(hosts.contains(host), expected, "{pattern}: {host}");
        }
    }

    #[test]
    fn refuses_patterns_of_another_form() {
        for text in [
            "",
            "*aliyuncs.com",
            "**",
            "*.",
            "*.*",
            "*.*.com",
            "oss-*.aliyuncs.com",
            "a.*",
            ".aliyuncs.com",
            "aliyuncs.com.",
            "https://oss.example",
            "oss.example:443",
            "oss.example/",
            "oss example",
            "*.10.0.0.1",
            "10.1",
            "0x0a000001",
            "[::1]",
        ] {
            let error = AllowedHost::parse(text).unwrap_err();
            assert_eq!(
                error,
                format!(
                    "{text:?} is not a host, \"*.\" and a domain, or \"*\" (without a scheme, port or path)"
                )
            );
        }
    }
}
