//! What a raw request addresses and who it claims to come from.

use http::request::Parts;
use http::{HeaderMap, Uri};
use percent_encoding::percent_decode_str;
use s3s::S3Result;
use s3s::host::{S3Host, VirtualHost};

use crate::record::Request;

/// Reads a request as the record and the faults see it: without any check.
pub(crate) fn read(parts: &Parts) -> Request {
    let path = percent_decode_str(parts.uri.path()).decode_utf8_lossy();
    let path = path.strip_prefix('/').unwrap_or(&path);
    let host = parts.headers.get(http::header::HOST);
    let (bucket, key) = match host.and_then(|host| host.to_str().ok()).and_then(bucket_of) {
        Some(bucket) => (bucket, path),
        None => path.split_once('/').unwrap_or((path, "")),
    };
    Request {
        method: parts.method.as_str().to_owned(),
        bucket: bucket.to_owned(),
        key: key.to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        key_id: key_id(&parts.headers, &parts.uri).unwrap_or_default(),
        status: None,
    }
}

/// The bucket in front of the host's name; `None` for the bare name and for addresses.
fn bucket_of(host: &str) -> Option<&str> {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    name.strip_suffix(".localhost")
}

/// The key id of a request of either signature, in its header or in its query.
fn key_id(headers: &HeaderMap, uri: &Uri) -> Option<String> {
    let header = headers.get(http::header::AUTHORIZATION);
    if let Some(header) = header.and_then(|header| header.to_str().ok()) {
        let (_, credential) = header
            .split_once("Credential=")
            .or(header.split_once("AWS "))
            .or(header.split_once("OSS "))?;
        return first(credential);
    }
    uri.query()?.split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let known = ["X-Amz-Credential", "AWSAccessKeyId"].contains(&name);
        known.then(|| first(&percent_decode_str(value).decode_utf8_lossy()))?
    })
}

/// What a credential has before its scope or its signature.
fn first(credential: &str) -> Option<String> {
    credential.split(['/', ':', ',']).next().map(str::to_owned)
}

/// Hosts as [`read`] understands them: `BUCKET.localhost`, everything else without a bucket.
pub(crate) struct Hosts;

impl S3Host for Hosts {
    fn parse_host_header<'a>(&'a self, host: &'a str) -> S3Result<VirtualHost<'a>> {
        let virtual_host = VirtualHost::new("localhost");
        Ok(match bucket_of(host) {
            Some(bucket) => virtual_host.with_bucket(bucket),
            None => virtual_host,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str, headers: &[(&str, &str)]) -> Request {
        let mut request = http::Request::get(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        read(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn finds_bucket_and_key_in_path_and_host() {
        for (host, uri, bucket, key) in [
            ("127.0.0.1:80", "/", "", ""),
            ("127.0.0.1:80", "/one", "one", ""),
            ("127.0.0.1", "/one/", "one", ""),
            ("localhost:80", "/one/d/a%20b/", "one", "d/a b/"),
            ("one.localhost:80", "/", "one", ""),
            ("one.localhost", "/d/x?acl", "one", "d/x"),
            ("[::1]:80", "/one", "one", ""),
        ] {
            let request = request(uri, &[("host", host)]);
            assert_eq!(
                (request.bucket.as_str(), request.key.as_str()),
                (bucket, key),
                "{host}{uri}"
            );
        }
    }

    #[test]
    fn finds_the_key_id_of_every_signature() {
        let v4 = "AWS4-HMAC-SHA256 Credential=ID/20200101/r/s3/aws4_request, SignedHeaders=host, Signature=0";
        assert_eq!(request("/", &[("authorization", v4)]).key_id, "ID");
        assert_eq!(
            request("/", &[("authorization", "AWS ID:sig")]).key_id,
            "ID"
        );
        assert_eq!(
            request("/", &[("authorization", "OSS ID:sig")]).key_id,
            "ID"
        );
        assert_eq!(
            request("/?X-Amz-Credential=ID%2F20200101", &[]).key_id,
            "ID"
        );
        assert_eq!(request("/?a=b&AWSAccessKeyId=ID", &[]).key_id, "ID");
        assert_eq!(request("/?acl", &[]).key_id, "");
    }
}
