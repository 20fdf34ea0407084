//! Where the objects are: bucket, sub-directory and endpoint, each checked once and then trusted.

use crate::config::AllowedHost;
use crate::options::refusal::Refusal;
use crate::text::{is_host_name, is_numeric_host, is_plain};
use std::net::Ipv4Addr;

/// The longest sub-directory, in bytes: an object's name has at most 1023.
const MAX_PATH: usize = 1023;

/// A bucket's name, after the naming rules of OSS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bucket(String);

impl Bucket {
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        let refuse = |problem: &str| Err(Refusal::of_value("bucket", text, problem));
        if text.contains(['/', ':']) {
            return refuse(
                "is not a bucket name alone: name a sub-directory with the option \"path\"",
            );
        }
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if !text.bytes().all(inner) {
            return refuse("is not a bucket name: use a-z, 0-9 and \"-\"");
        }
        if !(3..=63).contains(&text.len()) {
            return refuse("is not a bucket name: 3 to 63 characters are expected");
        }
        if text.starts_with('-') || text.ends_with('-') {
            return refuse("is not a bucket name: it begins and ends with a letter or digit");
        }
        Ok(Self(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A sub-directory of the bucket: absolute, without `.` and `..`, never the root itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SubDirectory(String);

impl SubDirectory {
    /// The directory of `text`; nothing for "/", which is the whole bucket.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>, Refusal> {
        let refuse = |problem: &str| Err(Refusal::of_value("path", text, problem));
        if text == "/" {
            return Ok(None);
        }
        if text.len() > MAX_PATH {
            return refuse("is longer than a name in a bucket can be (1023 bytes)");
        }
        let Some(relative) = text.strip_prefix('/') else {
            return refuse("is not absolute: \"/directory\" is expected");
        };
        let parts = relative.strip_suffix('/').unwrap_or(relative);
        if parts.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return refuse("has an empty, \".\" or \"..\" part");
        }
        if let Some(c) = text.chars().find(|&c| !is_plain(c) && c != ' ') {
            return refuse(&format!("has the character {c:?}, which is not allowed"));
        }
        Ok(Some(Self(format!("/{parts}"))))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Where a node of Alibaba Cloud answers questions about itself, its role's keys among the answers.
pub(crate) const METADATA_SERVICES: [Ipv4Addr; 1] = [Ipv4Addr::new(100, 100, 100, 200)];

/// An endpoint as the user wrote it: `host[:port]`, with or without `http(s)://`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Endpoint(String);

impl Endpoint {
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        let refuse = |problem: &str| {
            Err(Refusal::of_value(
                "url",
                text,
                &format!("{problem}: host[:port] or http(s)://host[:port] is expected"),
            ))
        };
        if let Some(c) = text.chars().find(|c| matches!(c, '@' | '?' | '#')) {
            // The text around them may be a password or a signature.
            return Err(Refusal::new(
                "url",
                format!("has a {c:?}: host[:port] or http(s)://host[:port] is expected"),
            ));
        }
        let authority = text
            .strip_prefix("https://")
            .or_else(|| text.strip_prefix("http://"))
            .unwrap_or(text);
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        };
        if !is_host_name(host) {
            return refuse("has no valid host name");
        }
        if let Some(port) = port {
            let number = port.bytes().all(|b| b.is_ascii_digit());
            if !number || !port.parse::<u16>().is_ok_and(|port| port > 0) {
                return refuse("has no valid port");
            }
        }
        if is_numeric_host(host) {
            let Ok(address) = host.parse::<Ipv4Addr>() else {
                return refuse("has an IP address that is not in dotted decimal form");
            };
            if METADATA_SERVICES.contains(&address)
                || address.is_link_local()
                || address.is_unspecified()
            {
                return Err(Refusal::of_value(
                    "url",
                    text,
                    "is a link-local or metadata address, where no bucket is",
                ));
            }
        }
        Ok(Self(text.to_owned()))
    }

    /// Whether the host is one of `hosts`.
    pub(crate) fn is_one_of(&self, hosts: &[AllowedHost]) -> bool {
        let host = self.host().to_ascii_lowercase();
        hosts.iter().any(|allowed| allowed.contains(&host))
    }

    fn host(&self) -> &str {
        let authority = self.0.rsplit('/').next().unwrap_or(&self.0);
        authority.split(':').next().unwrap_or(authority)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The region in a public endpoint of OSS, `oss-<region>[-internal].aliyuncs.com`.
    pub(crate) fn region(&self) -> Option<&str> {
        let name = self
            .host()
            .strip_suffix(".aliyuncs.com")?
            .strip_prefix("oss-")?;
        let region = name.strip_suffix("-internal").unwrap_or(name);
        (!region.is_empty() && !region.contains('.')).then_some(region)
    }
}

/// Where the volume's objects are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) bucket: Bucket,
    pub(crate) path: Option<SubDirectory>,
    pub(crate) endpoint: Endpoint,
}

impl Location {
    /// ossfs's first argument: `bucket` or `bucket:/path`.
    pub(crate) fn source(&self) -> String {
        match &self.path {
            Some(path) => format!("{}:{}", self.bucket.as_str(), path.as_str()),
            None => self.bucket.as_str().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Bucket, Endpoint, SubDirectory};
    use crate::config::AllowedHost;

    #[test]
    fn bucket_names() {
        for good in ["docker", "abc", "a-b", "0a9", &"a".repeat(63)] {
            assert!(Bucket::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "ab",
            &"a".repeat(64),
            "-ab",
            "ab-",
            "Abc",
            "a_b",
            "a.b",
            "a b",
            "a;b",
            "ö12",
        ] {
            assert!(Bucket::parse(bad).is_err(), "{bad}");
        }
        for bad in ["docker/dir", "docker:/dir"] {
            let message = Bucket::parse(bad).unwrap_err().to_string();
            assert!(message.contains("option \"path\""), "{message}");
        }
        assert_eq!(
            Bucket::parse("My_Data").unwrap_err().to_string(),
            r#"option "bucket": "My_Data" is not a bucket name: use a-z, 0-9 and "-""#
        );
    }

    #[test]
    fn sub_directories() {
        for (text, path) in [
            ("/a", "/a"),
            ("/a/b/", "/a/b"),
            ("/数据/x y", "/数据/x y"),
            ("/..a", "/..a"),
        ] {
            assert_eq!(SubDirectory::parse(text).unwrap().unwrap().as_str(), path);
        }
        assert_eq!(SubDirectory::parse("/"), Ok(None));
        for bad in [
            "a",
            "a/b",
            "//",
            "/a//b",
            "/.",
            "/..",
            "/a/../b",
            "/a/./b",
            "/a,b",
            "/a\\b",
            "/a\nb",
            "/a\tb",
            "/a\"b",
            "/a'b",
            "/a`b",
            "/a\u{202e}b",
            &format!("/{}", "x".repeat(1023)),
        ] {
            assert!(SubDirectory::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn endpoints() {
        for good in [
            "oss-cn-hangzhou.aliyuncs.com",
            "http://127.0.0.1:9000",
            "https://a-b.c:443",
            "localhost",
        ] {
            assert_eq!(Endpoint::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "http://",
            "ftp://a",
            "HTTP://a",
            "a/",
            "http://a/b",
            "a?b",
            "a#b",
            "u:p@a",
            "a:",
            "a:0",
            "a:65536",
            "a:1:2",
            "a:+1",
            "a b",
            "-a",
            "a-",
            "a..b",
            "a,suid",
            "a\\054b",
            "a;id",
            "$(id)",
            "[::1]:80",
            "2852039166",
            "0xa9fea9fe",
            "0251.0376.0251.0376",
            "0xa9.0xfe.1.1",
            "127.1",
            "1.2.3.4.5",
            "169.254.169.254",
            "http://100.100.100.200",
            "0.0.0.0:80",
            "a.0x1",
            "a.1",
            "host/?Signature=topsecret",
            "a\nb",
            "http://http://a",
            &"a".repeat(64),
            &"a.".repeat(130),
        ] {
            assert!(Endpoint::parse(bad).is_err(), "{bad}");
        }
        for (url, allowed, expected) in [
            ("https://OSS-cn-a.aliyuncs.com:443", "*.aliyuncs.com", true),
            ("http://xaliyuncs.com", "*.aliyuncs.com", false),
            ("a.com:80", "b.com", false),
        ] {
            let hosts = [AllowedHost::parse(allowed).unwrap()];
            let found = Endpoint::parse(url).unwrap().is_one_of(&hosts);
            assert_eq!(found, expected, "{url}");
        }
        assert!(
            !Endpoint::parse("u:topsecret@a")
                .unwrap_err()
                .to_string()
                .contains("topsecret")
        );
    }

    #[test]
    fn regions() {
        for (endpoint, region) in [
            ("oss-cn-hangzhou.aliyuncs.com", Some("cn-hangzhou")),
            (
                "http://oss-cn-hangzhou-internal.aliyuncs.com",
                Some("cn-hangzhou"),
            ),
            ("https://oss-us-west-1.aliyuncs.com:443", Some("us-west-1")),
            ("oss-.aliyuncs.com", None),
            ("oss-a.b.aliyuncs.com", None),
            ("oss.example.com", None),
            ("127.0.0.1", None),
        ] {
            assert_eq!(
                Endpoint::parse(endpoint)
                    .unwrap_or_else(|_| Endpoint(endpoint.into()))
                    .region(),
                region
            );
        }
    }
}
