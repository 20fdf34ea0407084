//! The names of headers in OSS and in S3.

use http::header::{AUTHORIZATION, ETAG};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::refusal::Refusal;

const META: (&str, &str) = ("x-oss-meta-", "x-amz-meta-");

/// The headers of requests that S3 has under another name.
const RENAMED: [(&str, &str); 7] = [
    ("x-oss-copy-source", "x-amz-copy-source"),
    ("x-oss-copy-source-if-match", "x-amz-copy-source-if-match"),
    (
        "x-oss-copy-source-if-modified-since",
        "x-amz-copy-source-if-modified-since",
    ),
    (
        "x-oss-copy-source-if-none-match",
        "x-amz-copy-source-if-none-match",
    ),
    (
        "x-oss-copy-source-if-unmodified-since",
        "x-amz-copy-source-if-unmodified-since",
    ),
    ("x-oss-copy-source-range", "x-amz-copy-source-range"),
    ("x-oss-metadata-directive", "x-amz-metadata-directive"),
];

/// The headers of requests that change nothing in this store: it has one storage class and no
/// ACLs, neither encrypts nor limits traffic, and knows no tokens. Those of the signature have been
/// used up.
const WITHOUT_EFFECT: [&str; 11] = [
    "x-oss-content-sha256",
    "x-oss-date",
    "x-oss-object-acl",
    "x-oss-range-behavior",
    "x-oss-request-payer",
    "x-oss-security-token",
    "x-oss-server-side-encryption",
    "x-oss-server-side-encryption-key-id",
    "x-oss-storage-class",
    "x-oss-traffic-limit",
    "x-oss-user-agent",
];

pub(super) fn is_of_oss(name: &HeaderName) -> bool {
    name.as_str().starts_with("x-oss-")
}

/// The values of a header, joined by commas, as both signatures have them; empty if there is none.
pub(super) fn text(headers: &HeaderMap, name: &str) -> String {
    let values = headers.get_all(name).iter();
    let values: Vec<_> = values
        .map(|value| String::from_utf8_lossy(value.as_bytes()).trim().to_owned())
        .collect();
    values.join(",")
}

/// Gives a verified request S3's names. What an OSS client sends under S3's names was not signed
/// and is dropped.
///
/// # Errors
/// `NotImplemented`, when a header of OSS would have an effect that this store does not have.
pub(super) fn to_s3(headers: &mut HeaderMap) -> Result<(), Refusal> {
    let mut renamed = HeaderMap::new();
    headers.remove(AUTHORIZATION);
    for (name, value) in headers.iter() {
        let text = name.as_str();
        if text.starts_with("x-amz-") || WITHOUT_EFFECT.contains(&text) {
            continue;
        }
        let known = RENAMED.iter().find(|(oss, _)| *oss == text);
        let new = match (known, text.strip_prefix(META.0)) {
            (Some((_, s3)), _) => HeaderName::from_static(s3),
            (None, Some(rest)) => HeaderName::try_from(format!("{}{rest}", META.1))
                .map_err(|_| Refusal::not_implemented(text))?,
            (None, None) if is_of_oss(name) => return Err(Refusal::not_implemented(text)),
            (None, None) => name.clone(),
        };
        renamed.append(new, value.clone());
    }
    *headers = renamed;
    Ok(())
}

/// Gives an answer OSS's names: metadata, tags in capitals, and the type of an object, which is
/// told by its tag.
pub(super) fn to_oss(headers: &mut HeaderMap) {
    let mut renamed = HeaderMap::new();
    for (name, value) in headers.iter() {
        match name.as_str().strip_prefix(META.1) {
            Some(rest) => {
                // A name that was valid with the other prefix, which is as long.
                if let Ok(name) = HeaderName::try_from(format!("{}{rest}", META.0)) {
                    renamed.append(name, value.clone());
                }
            }
            None if name.as_str().starts_with("x-amz-") => {}
            None => {
                renamed.append(name.clone(), value.clone());
            }
        }
    }
    if let Some(tag) = renamed.get(ETAG) {
        let tag = tag.as_bytes().to_ascii_uppercase();
        let kind = if tag.contains(&b'-') {
            "Multipart"
        } else {
            "Normal"
        };
        if let Ok(tag) = HeaderValue::from_bytes(&tag) {
            renamed.insert(ETAG, tag);
        }
        renamed.insert("x-oss-object-type", HeaderValue::from_static(kind));
        renamed.insert("x-oss-storage-class", HeaderValue::from_static("Standard"));
    }
    *headers = renamed;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(
                HeaderName::try_from(*name).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        headers
    }

    #[test]
    fn gives_requests_the_names_of_s3() {
        let mut request = headers(&[
            ("authorization", "OSS ID:x"),
            ("content-type", "text/plain"),
            ("x-oss-meta-mode", "33188"),
            ("x-oss-copy-source", "/bucket/key"),
            ("x-oss-date", "20250411T064124Z"),
            ("x-amz-meta-unsigned", "x"),
        ]);
        to_s3(&mut request).unwrap();
        let expected = headers(&[
            ("content-type", "text/plain"),
            ("x-amz-meta-mode", "33188"),
            ("x-amz-copy-source", "/bucket/key"),
        ]);
        assert_eq!(request, expected);
    }

    #[test]
    fn refuses_headers_whose_effect_it_does_not_have() {
        let refusal = to_s3(&mut headers(&[("x-oss-forbid-overwrite", "true")])).unwrap_err();
        assert_eq!(refusal.code, "NotImplemented");
    }

    #[test]
    fn gives_answers_the_names_of_oss() {
        let mut answer = headers(&[
            ("etag", "\"0a-2\""),
            ("x-amz-meta-mode", "33188"),
            ("x-amz-id-2", "x"),
        ]);
        to_oss(&mut answer);
        let expected = headers(&[
            ("etag", "\"0A-2\""),
            ("x-oss-meta-mode", "33188"),
            ("x-oss-object-type", "Multipart"),
            ("x-oss-storage-class", "Standard"),
        ]);
        assert_eq!(answer, expected);
    }
}
