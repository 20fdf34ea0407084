//! The signature in a request's `Authorization` header, of either version.

use std::time::{Duration, SystemTime};

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method};
use s3s::dto::Timestamp;

use super::refusal::Refusal;
use super::{headers, v1, v4};
use crate::record::Request;

/// How far the date of a request may be from now, in either direction.
const SKEW: Duration = Duration::from_secs(15 * 60);

/// A signature as it was sent.
pub(super) struct Signature {
    pub(super) key_id: String,
    version: Version,
    provided: String,
}

enum Version {
    V1,
    V4(v4::Scope),
}

/// Whether an `Authorization` header has one of OSS's schemes.
pub(super) fn is_of_oss(value: &HeaderValue) -> bool {
    let value = value.as_bytes();
    value.starts_with(b"OSS ") || value.starts_with(b"OSS4-")
}

/// Whether the parameters of a request have a signature of OSS.
pub(super) fn is_in_query(query: &str) -> bool {
    ["OSSAccessKeyId=", "x-oss-signature"]
        .iter()
        .any(|name| query.contains(name))
}

impl Signature {
    /// Reads the signature of a request.
    ///
    /// # Errors
    /// When there is none in the headers, or it is malformed.
    pub(super) fn parse(headers: &HeaderMap) -> Result<Self, Refusal> {
        let Some(value) = headers.get(AUTHORIZATION) else {
            return Err(Refusal::anonymous());
        };
        let value = value.to_str().unwrap_or_default();
        let parsed = match value.split_once(' ') {
            Some(("OSS", value)) => value.split_once(':').map(|(id, provided)| Self {
                key_id: id.to_owned(),
                version: Version::V1,
                provided: provided.to_owned(),
            }),
            Some((v4::SCHEME, value)) => v4::parse(value).map(|(key_id, scope, provided)| Self {
                key_id,
                version: Version::V4(scope),
                provided,
            }),
            _ => None,
        };
        parsed.ok_or_else(Refusal::malformed_signature)
    }

    /// Checks the signature against the secret, and the date against `now`.
    ///
    /// # Errors
    /// When one of them is wrong.
    pub(super) fn verify(
        &self,
        secret: &str,
        method: &Method,
        request: &Request,
        headers: &HeaderMap,
        now: SystemTime,
    ) -> Result<(), Refusal> {
        let (date, text, expected, ec) = match &self.version {
            Version::V1 => {
                let date = v1::date(headers).ok_or_else(Refusal::no_date)?;
                let text = v1::string_to_sign(method.as_str(), request, headers);
                let expected = v1::sign(secret, &text);
                (date, text, expected, "0002-00000040")
            }
            Version::V4(scope) => {
                if headers::text(headers, v4::PAYLOAD_HEADER) != v4::PAYLOAD {
                    return Err(Refusal::malformed_signature());
                }
                let date = scope.date(headers).ok_or_else(Refusal::no_date)?;
                let text = scope.string_to_sign(method.as_str(), request, headers);
                let expected = scope.sign(secret, &text);
                (date, text, expected, "0002-00000201")
            }
        };
        if date < Timestamp::from(now - SKEW) || date > Timestamp::from(now + SKEW) {
            return Err(Refusal::skewed());
        }
        if self.provided == expected {
            Ok(())
        } else {
            Err(Refusal::wrong_signature(
                &self.key_id,
                &self.provided,
                &text,
                ec,
            ))
        }
    }
}
