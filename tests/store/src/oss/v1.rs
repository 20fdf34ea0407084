//! Version 1 of the signature.
//!
//! <https://www.alibabacloud.com/help/en/oss/developer-reference/include-signatures-in-the-authorization-header>

use std::collections::BTreeSet;

use base64_simd::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use percent_encoding::percent_decode_str;
use s3s::dto::{Timestamp, TimestampFormat};
use sha1::Sha1;

use super::headers::text;
use crate::record::Request;

/// The parameters that are part of the resource. `response-` and `x-oss-` ones are, too.
const SUB_RESOURCES: [&str; 45] = [
    "acl",
    "append",
    "asyncFetch",
    "bucketInfo",
    "callback",
    "callback-var",
    "cname",
    "comp",
    "continuation-token",
    "cors",
    "delete",
    "encryption",
    "endTime",
    "img",
    "inventory",
    "inventoryId",
    "lifecycle",
    "live",
    "location",
    "logging",
    "objectMeta",
    "partNumber",
    "policy",
    "position",
    "qos",
    "qosInfo",
    "referer",
    "replication",
    "replicationLocation",
    "replicationProgress",
    "requestPayment",
    "restore",
    "security-token",
    "sequential",
    "startTime",
    "stat",
    "status",
    "symlink",
    "tagging",
    "uploadId",
    "uploads",
    "versionId",
    "versioning",
    "versions",
    "website",
];

/// The date of a request; `None` if there is none, or it is not one of HTTP.
pub(super) fn date(headers: &HeaderMap) -> Option<Timestamp> {
    Timestamp::parse(TimestampFormat::HttpDate, &text(headers, "date")).ok()
}

/// The text that is signed.
pub(super) fn string_to_sign(method: &str, request: &Request, headers: &HeaderMap) -> String {
    let mut signed = format!(
        "{method}\n{}\n{}\n{}\n",
        text(headers, "content-md5"),
        text(headers, "content-type"),
        text(headers, "date")
    );
    let names: BTreeSet<&str> = headers.keys().map(|name| name.as_str()).collect();
    for name in names {
        if name.starts_with("x-oss-") {
            signed += &format!("{name}:{}\n", text(headers, name));
        }
    }
    signed + &resource(request)
}

/// The resource: bucket, key and sub-resources, without escapes whatever the style of the URL is.
fn resource(request: &Request) -> String {
    let mut resource = match request.bucket.as_str() {
        "" => "/".to_owned(),
        bucket => format!("/{bucket}/{}", request.key),
    };
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let mut parameters: Vec<(String, Option<String>)> = request
        .query
        .split('&')
        .map(|pair| match pair.split_once('=') {
            Some((name, value)) => (decode(name), Some(decode(value))),
            None => (decode(pair), None),
        })
        .filter(|(name, _)| {
            SUB_RESOURCES.contains(&name.as_str())
                || name.starts_with("response-")
                || name.starts_with("x-oss-")
        })
        .collect();
    parameters.sort();
    for (index, (name, value)) in parameters.iter().enumerate() {
        resource.push(if index == 0 { '?' } else { '&' });
        resource += name;
        if let Some(value) = value {
            resource += &format!("={value}");
        }
    }
    resource
}

/// The signature of a text.
pub(super) fn sign(secret: &str, text: &str) -> String {
    let mut mac =
        Hmac::<Sha1>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(text.as_bytes());
    STANDARD.encode_to_string(mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address;

    fn signed(method: &str, uri: &str, headers: &[(&str, &str)]) -> String {
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let parts = request.body(()).unwrap().into_parts().0;
        string_to_sign(method, &address::read(&parts), &parts.headers)
    }

    /// The example of the documentation.
    #[test]
    fn agrees_with_the_documentation() {
        let text = signed(
            "PUT",
            "/nelson",
            &[
                (
                    "Content-Md5",
                    "ODBGOERFMDMzQTczRUY3NUE3NzA5QzdFNUYzMDQxNEM=",
                ),
                ("Content-Type", "text/html"),
                ("Date", "Thu, 17 Nov 2005 18:49:58 GMT"),
                ("Host", "oss-example.localhost"),
                ("X-OSS-Meta-Author", "foo@bar.com"),
                ("X-OSS-Magic", "abracadabra"),
            ],
        );
        let documented = "PUT\nODBGOERFMDMzQTczRUY3NUE3NzA5QzdFNUYzMDQxNEM=\ntext/html\n\
                          Thu, 17 Nov 2005 18:49:58 GMT\nx-oss-magic:abracadabra\n\
                          x-oss-meta-author:foo@bar.com\n/oss-example/nelson";
        assert_eq!(text, documented);
        assert_eq!(
            sign("OtxrzxIsfpFjA7SwPzILwy8Bw21TLhquhboDYROV", &text),
            "26NBxoKdsyly4EDv6inkoDft/yA="
        );
    }

    #[test]
    fn the_resource_has_the_sub_resources_in_order_and_nothing_escaped() {
        for (uri, resource) in [
            ("/", "/"),
            ("/bucket", "/bucket/"),
            ("/bucket/?prefix=a&delimiter=/&max-keys=2", "/bucket/"),
            ("/bucket?uploads", "/bucket/?uploads"),
            (
                "/bucket/a%20b?uploadId=1%2B&partNumber=2",
                "/bucket/a b?partNumber=2&uploadId=1+",
            ),
            (
                "/bucket?continuation-token=x&list-type=2",
                "/bucket/?continuation-token=x",
            ),
        ] {
            let text = signed("GET", uri, &[]);
            assert_eq!(text, format!("GET\n\n\n\n{resource}"), "{uri}");
        }
    }
}
