//! Version 4 of the signature.
//!
//! <https://www.alibabacloud.com/help/en/oss/developer-reference/recommend-to-use-signature-version-4>

use std::collections::BTreeSet;

use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use s3s::dto::{Timestamp, TimestampFormat};
use sha2::{Digest, Sha256};

use super::headers::text;
use crate::objects::hex;
use crate::record::Request;

/// The name of the signature in the `Authorization` header.
pub(super) const SCHEME: &str = "OSS4-HMAC-SHA256";

/// The header that stands for the body, and the only value that it has: bodies are not signed.
pub(super) const PAYLOAD_HEADER: &str = "x-oss-content-sha256";
pub(super) const PAYLOAD: &str = "UNSIGNED-PAYLOAD";

const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');
const ESCAPED_IN_PATH: &AsciiSet = &ESCAPED.remove(b'/');

/// What a signature holds for, as its `Credential` says, and the headers that it has besides those
/// that it always has.
pub(super) struct Scope {
    /// `YYYYMMDD`.
    day: String,
    region: String,
    product: String,
    additional: BTreeSet<String>,
}

/// Reads what follows the scheme: key id, scope and signature.
pub(super) fn parse(value: &str) -> Option<(String, Scope, String)> {
    let field = |name: &str| {
        let fields = value
            .split(',')
            .filter_map(|field| field.trim().split_once('='));
        fields
            .clone()
            .find(|(found, _)| *found == name)
            .map(|(_, value)| value)
    };
    let mut credential = field("Credential")?.split('/');
    let mut next = || credential.next().map(str::to_owned);
    let (key_id, day, region, product) = (next()?, next()?, next()?, next()?);
    if (next()?.as_str(), next()) != ("aliyun_v4_request", None) {
        return None;
    }
    let additional = field("AdditionalHeaders").unwrap_or_default();
    let additional = additional.split(';').filter(|name| !name.is_empty());
    let scope = Scope {
        day,
        region,
        product,
        additional: additional.map(str::to_ascii_lowercase).collect(),
    };
    Some((key_id, scope, field("Signature")?.to_owned()))
}

impl Scope {
    /// The date of a request; `None` if there is none, it is malformed, or of another day than the
    /// scope.
    pub(super) fn date(&self, headers: &HeaderMap) -> Option<Timestamp> {
        let date = text(headers, "x-oss-date");
        let (day, time) = date.strip_suffix('Z')?.split_once('T')?;
        let digits =
            |text: &str, len| text.len() == len && text.bytes().all(|byte| byte.is_ascii_digit());
        if day != self.day || !digits(day, 8) || !digits(time, 6) {
            return None;
        }
        let date = format!(
            "{}-{}-{}T{}:{}:{}Z",
            &day[..4],
            &day[4..6],
            &day[6..],
            &time[..2],
            &time[2..4],
            &time[4..]
        );
        Timestamp::parse(TimestampFormat::DateTime, &date).ok()
    }

    fn text(&self) -> String {
        format!(
            "{}/{}/{}/aliyun_v4_request",
            self.day, self.region, self.product
        )
    }

    /// The text that is signed.
    pub(super) fn string_to_sign(
        &self,
        method: &str,
        request: &Request,
        headers: &HeaderMap,
    ) -> String {
        let canonical = self.canonical_request(method, request, headers);
        format!(
            "{SCHEME}\n{}\n{}\n{}",
            text(headers, "x-oss-date"),
            self.text(),
            hex(&Sha256::digest(canonical.as_bytes()))
        )
    }

    fn canonical_request(&self, method: &str, request: &Request, headers: &HeaderMap) -> String {
        let resource = match request.bucket.as_str() {
            "" => "/".to_owned(),
            bucket => format!("/{bucket}/{}", request.key),
        };
        let always = |name: &str| {
            name.starts_with("x-oss-") || matches!(name, "content-type" | "content-md5")
        };
        let names: BTreeSet<&str> = headers
            .keys()
            .map(|name| name.as_str())
            .filter(|name| always(name) || self.additional.contains(*name))
            .collect();
        let signed: String = names
            .iter()
            .map(|name| format!("{name}:{}\n", text(headers, name)))
            .collect();
        let additional: Vec<&str> = self.additional.iter().map(String::as_str).collect();
        format!(
            "{method}\n{}\n{}\n{signed}\n{}\n{PAYLOAD}",
            utf8_percent_encode(&resource, ESCAPED_IN_PATH),
            canonical_query(&request.query),
            additional.join(";")
        )
    }

    /// The signature of a text.
    pub(super) fn sign(&self, secret: &str, text: &str) -> String {
        let key = hmac(format!("aliyun_v4{secret}").as_bytes(), &self.day);
        let key = hmac(&key, &self.region);
        let key = hmac(&key, &self.product);
        let key = hmac(&key, "aliyun_v4_request");
        hex(&hmac(&key, text))
    }
}

/// The parameters, escaped anew and in order; one without a value has no equals sign.
fn canonical_query(query: &str) -> String {
    let encode = |text: &str| {
        let text = percent_decode_str(text).decode_utf8_lossy();
        utf8_percent_encode(&text, ESCAPED).to_string()
    };
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let mut pairs: Vec<(String, String)> = pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (encode(name), encode(value))
        })
        .collect();
    pairs.sort();
    let pairs: Vec<String> = pairs
        .into_iter()
        .map(|(name, value)| match value.as_str() {
            "" => name,
            value => format!("{name}={value}"),
        })
        .collect();
    pairs.join("&")
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address;

    /// A request, and what is made of it: the canonical request, the text to sign, the signature.
    fn signed(
        authorization: &str,
        secret: &str,
        uri: &str,
        headers: &[(&str, &str)],
    ) -> (String, String, String) {
        let mut request = http::Request::put(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let parts = request.body(()).unwrap().into_parts().0;
        let (_, scope, _) = parse(authorization).unwrap();
        let request = address::read(&parts);
        let canonical = scope.canonical_request("PUT", &request, &parts.headers);
        let text = scope.string_to_sign("PUT", &request, &parts.headers);
        let signature = scope.sign(secret, &text);
        (canonical, text, signature)
    }

    /// The example of the documentation. The secret that belongs to its signature is not given
    /// there; the other tests have complete ones.
    #[test]
    fn agrees_with_the_documentation() {
        let (canonical, text, _) = signed(
            "Credential=LTAI/20250411/cn-hangzhou/oss/aliyun_v4_request, \
             AdditionalHeaders=content-disposition;content-length, Signature=0",
            "",
            "/exampleobject",
            &[
                ("host", "examplebucket.localhost"),
                ("content-disposition", "attachment"),
                ("content-length", "3"),
                ("content-md5", "ICy5YqxZB1uWSwcVLSNLcA=="),
                ("content-type", "text/plain"),
                ("x-oss-content-sha256", "UNSIGNED-PAYLOAD"),
                ("x-oss-date", "20250411T064124Z"),
            ],
        );
        assert_eq!(
            canonical,
            "PUT\n/examplebucket/exampleobject\n\ncontent-disposition:attachment\n\
             content-length:3\ncontent-md5:ICy5YqxZB1uWSwcVLSNLcA==\ncontent-type:text/plain\n\
             x-oss-content-sha256:UNSIGNED-PAYLOAD\nx-oss-date:20250411T064124Z\n\n\
             content-disposition;content-length\nUNSIGNED-PAYLOAD"
        );
        assert_eq!(
            text,
            "OSS4-HMAC-SHA256\n20250411T064124Z\n20250411/cn-hangzhou/oss/aliyun_v4_request\n\
             c46d96390bdbc2d739ac9363293ae9d710b14e48081fcb22cd8ad54b63136eca"
        );
    }

    /// The vectors that the SDKs of OSS share.
    #[test]
    fn agrees_with_the_sdks() {
        let scope = "Credential=ak/20231216/cn-hangzhou/oss/aliyun_v4_request";
        for (date, more, signature) in [
            (
                "20231216T162057Z",
                "",
                "e21d18daa82167720f9b1047ae7e7f1ce7cb77a31e8203a7d5f4624fa0284afe",
            ),
            (
                "20231216T172512Z",
                ",AdditionalHeaders=abc;zabc",
                "4a4183c187c07c8947db7620deb0a6b38d9fbdd34187b6dbaccb316fa251212f",
            ),
        ] {
            let (_, _, found) = signed(
                &format!("{scope}{more},Signature=0"),
                "sk",
                "/1234%2B-/123/1.txt?%2Bparam1=value3&%2Bparam2=&param1=value1&param2=\
                 &%7Cparam1=value4&%7Cparam2=",
                &[
                    ("host", "bucket.localhost"),
                    ("x-oss-head1", "value"),
                    ("abc", "value"),
                    ("ZAbc", "value"),
                    ("XYZ", "value"),
                    ("content-type", "text/plain"),
                    ("x-oss-content-sha256", "UNSIGNED-PAYLOAD"),
                    ("x-oss-date", date),
                ],
            );
            assert_eq!(found, signature, "{date}");
        }
    }

    #[test]
    fn takes_only_complete_credentials() {
        for value in [
            "",
            "Credential=ak/20231216/r/oss/aliyun_v4_request",
            "Credential=ak/20231216/r/oss/aws4_request,Signature=0",
            "Credential=ak/20231216/oss/aliyun_v4_request,Signature=0",
            "Credential=ak/20231216/r/oss/aliyun_v4_request/more,Signature=0",
        ] {
            assert!(parse(value).is_none(), "{value}");
        }
    }
}
