//! What OSS says when it refuses a request.
//!
//! The document and the codes: <https://www.alibabacloud.com/help/en/oss/user-guide/overview-14>.
//! `EC` tells the causes of one code apart; only the documented ones that occur here are given.

use http::StatusCode;

use super::document::{element, escape};
use crate::record::Request;

#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) code: String,
    message: String,
    pub(super) ec: Option<&'static str>,
    /// More elements of the document.
    more: Vec<(&'static str, String)>,
}

impl Refusal {
    fn new(status: StatusCode, code: &str, message: &str, ec: Option<&'static str>) -> Self {
        Self {
            status,
            code: code.to_owned(),
            message: message.to_owned(),
            ec,
            more: Vec::new(),
        }
    }

    /// The error of an S3 operation; `None` if the document is no error.
    pub(super) fn of_s3(status: StatusCode, document: &str) -> Option<Self> {
        let (code, ec) = match element(document, "Code")? {
            "AccessDenied" => ("AccessDenied", Some("0003-00000001")),
            "BadDigest" => ("InvalidDigest", None),
            "KeyTooLongError" => ("InvalidObjectName", None),
            code => (code, None),
        };
        let mut refusal = Self::new(status, code, "", ec);
        // It is in XML's escapes already.
        refusal.message = element(document, "Message").unwrap_or_default().to_owned();
        Some(refusal)
    }

    pub(super) fn anonymous() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "AccessDenied",
            "You have no right to access this object because of bucket acl.",
            Some("0003-00000001"),
        )
    }

    pub(super) fn malformed_signature() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "InvalidArgument",
            "Authorization header is invalid.",
            Some("0002-00000062"),
        )
    }

    pub(super) fn unknown_key(key_id: &str) -> Self {
        let mut refusal = Self::new(
            StatusCode::FORBIDDEN,
            "InvalidAccessKeyId",
            "The OSS Access Key Id you provided does not exist in our records.",
            Some("0002-00000902"),
        );
        refusal.more.push(("OSSAccessKeyId", key_id.to_owned()));
        refusal
    }

    pub(super) fn no_date() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "AccessDenied",
            "OSS authentication requires a valid Date.",
            None,
        )
    }

    pub(super) fn skewed() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "RequestTimeTooSkewed",
            "The difference between the request time and the current time is too large.",
            Some("0002-00000504"),
        )
    }

    /// `ec` tells the versions of the signature apart.
    pub(super) fn wrong_signature(
        key_id: &str,
        provided: &str,
        string_to_sign: &str,
        ec: &'static str,
    ) -> Self {
        let mut refusal = Self::new(
            StatusCode::FORBIDDEN,
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided. \
             Check your key and signing method.",
            Some(ec),
        );
        let bytes = string_to_sign.bytes().map(|byte| format!("{byte:02X} "));
        refusal.more = vec![
            ("OSSAccessKeyId", key_id.to_owned()),
            ("SignatureProvided", provided.to_owned()),
            ("StringToSign", string_to_sign.to_owned()),
            ("StringToSignBytes", bytes.collect()),
        ];
        refusal
    }

    pub(super) fn not_implemented(header: &str) -> Self {
        let mut refusal = Self::new(
            StatusCode::NOT_IMPLEMENTED,
            "NotImplemented",
            "A header you provided implies functionality that is not implemented.",
            None,
        );
        refusal.more.push(("Header", header.to_owned()));
        refusal
    }

    /// The body of the answer.
    pub(super) fn document(&self, id: &str, host: &str, request: &Request) -> String {
        let mut text = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error>\n  <Code>{}</Code>\n  \
             <Message>{}</Message>\n  <RequestId>{id}</RequestId>\n  <HostId>{}</HostId>\n",
            self.code,
            self.message,
            escape(host)
        );
        let named = match self.code.as_str() {
            "NoSuchBucket" => Some(("BucketName", request.bucket.clone())),
            "NoSuchKey" => Some(("Key", request.key.clone())),
            _ => None,
        };
        for (name, value) in self.more.iter().chain(&named) {
            text += &format!("  <{name}>{}</{name}>\n", escape(value));
        }
        if let Some(ec) = self.ec {
            text += &format!("  <EC>{ec}</EC>\n");
        }
        text + "</Error>\n"
    }
}
