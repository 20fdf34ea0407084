//! The dialect of OSS over raw HTTP: signatures, names of headers, documents.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, SystemTime};

use base64_simd::STANDARD;
use s3s::dto::{Timestamp, TimestampFormat};
use store::{Fault, Store};

use crate::client::{Answer, LONG, error, hmac_sha1, hmac_sha256, store};

/// A request of an OSS client, to be signed in either way, or wrongly, or not at all.
#[derive(Clone)]
struct Oss<'a> {
    method: &'a str,
    target: &'a str,
    headers: Vec<(&'a str, &'a str)>,
    body: &'a [u8],
    key: (&'a str, &'a str),
    date: SystemTime,
}

#[derive(Clone, Copy, Debug)]
enum Version {
    V1,
    V4,
}

const VERSIONS: [Version; 2] = [Version::V1, Version::V4];

fn oss<'a>(method: &'a str, target: &'a str) -> Oss<'a> {
    Oss {
        method,
        target,
        headers: Vec::new(),
        body: b"",
        key: ("ID", "secret"),
        date: SystemTime::now(),
    }
}

impl<'a> Oss<'a> {
    fn header(mut self, name: &'a str, value: &'a str) -> Self {
        self.headers.push((name, value));
        self
    }

    fn body(mut self, body: &'a [u8]) -> Self {
        self.body = body;
        self
    }

    fn key(mut self, id: &'a str, secret: &'a str) -> Self {
        self.key = (id, secret);
        self
    }

    /// Signed by a clock that is so many seconds off.
    fn clock(mut self, seconds: i64) -> Self {
        let off = Duration::from_secs(seconds.unsigned_abs());
        self.date = if seconds < 0 {
            self.date - off
        } else {
            self.date + off
        };
        self
    }

    fn send(&self, store: &Store, version: Version) -> Answer {
        let mut headers: BTreeMap<String, String> = self
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect();
        let authorization = match version {
            Version::V1 => self.sign_v1(&mut headers),
            Version::V4 => self.sign_v4(&mut headers),
        };
        headers.insert("authorization".to_owned(), authorization);
        self.send_as(store, &headers)
    }

    fn send_as(&self, store: &Store, headers: &BTreeMap<String, String>) -> Answer {
        let mut stream = TcpStream::connect(store.address()).expect("a connection");
        stream
            .set_read_timeout(Some(LONG))
            .expect("a limit of time");
        let mut head = format!(
            "{} {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n",
            self.method,
            self.target,
            store.address(),
            self.body.len()
        );
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += "\r\n";
        stream.write_all(head.as_bytes()).expect("a request sent");
        // The server may have answered and closed before it has read all of the body.
        let _ = stream.write_all(self.body);
        Answer::read(stream).expect("an answer")
    }

    fn sign_v1(&self, headers: &mut BTreeMap<String, String>) -> String {
        let date = format_date(self.date, TimestampFormat::HttpDate);
        headers.insert("date".to_owned(), date.clone());
        let value = |name: &str| headers.get(name).cloned().unwrap_or_default();
        let mut text = format!(
            "{}\n{}\n{}\n{date}\n",
            self.method,
            value("content-md5"),
            value("content-type")
        );
        for (name, value) in headers
            .iter()
            .filter(|(name, _)| name.starts_with("x-oss-"))
        {
            text += &format!("{name}:{value}\n");
        }
        let (path, query) = self.target.split_once('?').unwrap_or((self.target, ""));
        // Only version 4 signs the path as it is sent.
        text += &path.replace("%20", " ");
        let signed = ["uploads", "uploadId", "partNumber", "continuation-token"];
        let mut query: Vec<&str> = query.split('&').collect();
        query.retain(|pair| signed.contains(&pair.split('=').next().unwrap_or(pair)));
        query.sort();
        if !query.is_empty() {
            text += &format!("?{}", query.join("&"));
        }
        let (id, secret) = self.key;
        let signature = hmac_sha1(secret.as_bytes(), text.as_bytes());
        format!("OSS {id}:{}", STANDARD.encode_to_string(signature))
    }

    fn sign_v4(&self, headers: &mut BTreeMap<String, String>) -> String {
        let date = format_date(self.date, TimestampFormat::DateTime);
        let date = format!("{}Z", &date[..19]).replace(['-', ':'], "");
        let day = &date[..8];
        headers.insert("x-oss-date".to_owned(), date.clone());
        headers.insert(
            "x-oss-content-sha256".to_owned(),
            "UNSIGNED-PAYLOAD".to_owned(),
        );
        let (path, query) = self.target.split_once('?').unwrap_or((self.target, ""));
        let mut query: Vec<&str> = query.split('&').collect();
        query.sort();
        let signed: String = headers
            .iter()
            .map(|(name, value)| format!("{name}:{value}\n"))
            .collect();
        let canonical = format!(
            "{}\n{path}\n{}\n{signed}\n\nUNSIGNED-PAYLOAD",
            self.method,
            query.join("&")
        );
        let scope = format!("{day}/cn-hangzhou/oss/aliyun_v4_request");
        let text = format!(
            "OSS4-HMAC-SHA256\n{date}\n{scope}\n{}",
            hex(&sha256(canonical.as_bytes()))
        );
        let (id, secret) = self.key;
        let mut key = format!("aliyun_v4{secret}").into_bytes();
        for part in [day, "cn-hangzhou", "oss", "aliyun_v4_request", &text] {
            key = hmac_sha256(&key, part.as_bytes()).to_vec();
        }
        format!(
            "OSS4-HMAC-SHA256 Credential={id}/{scope}, Signature={}",
            hex(&key)
        )
    }
}

fn sha256(data: &[u8]) -> [u8; 32] {
    use s3s::crypto::{Checksum, Sha256};
    Sha256::checksum(data)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn format_date(date: SystemTime, format: TimestampFormat) -> String {
    let mut text = Vec::new();
    Timestamp::from(date)
        .format(format, &mut text)
        .expect("a date");
    String::from_utf8(text).expect("a date in ASCII")
}

#[test]
fn objects_keep_their_metadata() {
    for version in VERSIONS {
        let (store, s3) = store();
        let put = oss("PUT", "/bucket/a%20b")
            .header("content-type", "text/plain")
            .header("x-oss-meta-mode", "33188")
            .body(b"hello");
        let put = put.send(&store, version);
        assert_eq!(put.status, 200, "{version:?}: {}", put.text());
        assert_eq!(
            put.header("etag"),
            Some("\"5D41402ABC4B2A76B9719D911017C592\"")
        );
        let info = store.info("bucket", "a b").unwrap();
        assert_eq!(info.metadata["mode"], "33188");

        let head = oss("HEAD", "/bucket/a%20b").send(&store, version);
        assert_eq!(head.header("x-oss-meta-mode"), Some("33188"));
        assert_eq!(head.header("x-oss-object-type"), Some("Normal"));
        assert_eq!(head.header("content-length"), Some("5"));
        assert_eq!(head.header("server"), Some("AliyunOSS"));
        assert!(head.header("x-oss-request-id").is_some());
        assert_eq!(
            s3.head("/bucket/a%20b").header("x-amz-meta-mode"),
            Some("33188")
        );
    }
}

#[test]
fn copies_replace_metadata() {
    for version in VERSIONS {
        let (store, _) = store();
        store.put("bucket", "a", "hello");
        let copy = oss("PUT", "/bucket/b")
            .header("x-oss-copy-source", "/bucket/a")
            .header("x-oss-metadata-directive", "REPLACE")
            .header("x-oss-meta-uid", "7")
            .send(&store, version);
        assert_eq!(copy.status, 200, "{version:?}: {}", copy.text());
        assert_eq!(copy.one("ETag"), "\"5D41402ABC4B2A76B9719D911017C592\"");
        assert_eq!(store.object("bucket", "b"), Some(b"hello".to_vec()));
        assert_eq!(store.info("bucket", "b").unwrap().metadata["uid"], "7");
    }
}

#[test]
fn a_copy_needs_access_to_its_source() {
    let (store, _) = store();
    store.create_bucket("other");
    store.put("other", "a", "hello");
    store.restrict("other", &["SOMEONE"]);
    let copy = oss("PUT", "/bucket/b").header("x-oss-copy-source", "/other/a");
    assert_eq!(
        copy.send(&store, Version::V1).error(),
        error(403, "AccessDenied")
    );
}

#[test]
fn listings_are_in_no_namespace() {
    for version in VERSIONS {
        let (store, s3) = store();
        store.put("bucket", "d/a", "hello");
        let target = "/bucket/?delimiter=%2F&max-keys=2&prefix=d%2F";
        let list = oss("GET", target).send(&store, version);
        assert_eq!(list.one("Key"), "d/a", "{version:?}: {}", list.text());
        assert_eq!(list.one("StorageClass"), "Standard");
        assert!(!list.text().contains("xmlns"), "{}", list.text());
        assert!(s3.get(target).text().contains("xmlns"));
    }
}

#[test]
fn the_contents_of_objects_pass_as_they_are() {
    let (store, _) = store();
    let xml = b"<R xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><ETag>a</ETag></R>";
    let put = oss("PUT", "/bucket/a")
        .header("content-type", "application/xml")
        .body(xml);
    assert_eq!(put.send(&store, Version::V1).status, 200);
    let get = oss("GET", "/bucket/a").send(&store, Version::V1);
    assert_eq!(get.body, xml);
}

#[test]
fn parts_become_an_object() {
    for version in VERSIONS {
        let (store, _) = store();
        let begun = oss("POST", "/bucket/a?uploads").send(&store, version);
        let id = begun.one("UploadId");
        assert!(!id.is_empty(), "{version:?}: {}", begun.text());
        let part = format!("/bucket/a?partNumber=1&uploadId={id}");
        let part = oss("PUT", &part).body(b"hello").send(&store, version);
        let tag = part.header("etag").unwrap().to_owned();
        let list = format!(
            "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{tag}</ETag></Part>\
             </CompleteMultipartUpload>"
        );
        let complete = format!("/bucket/a?uploadId={id}");
        let done = oss("POST", &complete).body(list.as_bytes());
        let done = done.send(&store, version);
        assert_eq!(done.status, 200, "{version:?}: {}", done.text());
        let head = oss("HEAD", "/bucket/a").send(&store, version);
        assert_eq!(head.header("x-oss-object-type"), Some("Multipart"));
    }
}

#[test]
fn wrong_signatures_are_told_with_the_text_that_was_signed() {
    let (store, _) = store();
    for (version, ec) in [
        (Version::V1, "0002-00000040"),
        (Version::V4, "0002-00000201"),
    ] {
        let get = oss("GET", "/bucket/a").key("ID", "wrong");
        let answer = get.send(&store, version);
        assert_eq!(answer.error(), error(403, "SignatureDoesNotMatch"));
        assert_eq!(answer.one("EC"), ec);
        assert_eq!(answer.header("x-oss-ec"), Some(ec));
        assert_eq!(answer.one("OSSAccessKeyId"), "ID");
        assert!(!answer.one("StringToSign").is_empty());
        assert_eq!(answer.header("content-type"), Some("application/xml"));
        assert!(!answer.text().contains("secret"));
    }
}

#[test]
fn what_is_signed_cannot_be_changed() {
    let (store, _) = store();
    let put = oss("PUT", "/bucket/a").header("x-oss-meta-mode", "33188");
    let mut headers = BTreeMap::from([("x-oss-meta-mode".to_owned(), "33188".to_owned())]);
    for version in VERSIONS {
        let authorization = match version {
            Version::V1 => put.sign_v1(&mut headers),
            Version::V4 => put.sign_v4(&mut headers),
        };
        let mut changed = headers.clone();
        changed.insert("authorization".to_owned(), authorization);
        changed.insert("x-oss-meta-mode".to_owned(), "35309".to_owned());
        let answer = put.send_as(&store, &changed);
        assert_eq!(
            answer.error(),
            error(403, "SignatureDoesNotMatch"),
            "{version:?}"
        );
    }
    assert_eq!(store.keys("bucket"), Vec::<String>::new());
}

#[test]
fn unknown_keys_and_buckets_are_told() {
    let (store, _) = store();
    store.create_bucket("other");
    store.restrict("other", &["SOMEONE"]);
    for version in VERSIONS {
        for (target, id, expected) in [
            ("/bucket/", "WRONG", error(403, "InvalidAccessKeyId")),
            ("/other/", "ID", error(403, "AccessDenied")),
            ("/absent/", "ID", error(404, "NoSuchBucket")),
            ("/bucket/a", "ID", error(404, "NoSuchKey")),
        ] {
            let answer = oss("GET", target).key(id, "secret").send(&store, version);
            assert_eq!(answer.error(), expected, "{version:?} {target}");
            assert!(!answer.one("RequestId").is_empty());
            assert_eq!(answer.one("HostId"), store.address().to_string());
        }
    }
}

#[test]
fn a_date_may_be_a_quarter_of_an_hour_off() {
    let (store, _) = store();
    for version in VERSIONS {
        for (seconds, expected) in [
            (-800, error(200, "")),
            (800, error(200, "")),
            (-1000, error(403, "RequestTimeTooSkewed")),
            (1000, error(403, "RequestTimeTooSkewed")),
        ] {
            let answer = oss("GET", "/bucket/").clock(seconds).send(&store, version);
            assert_eq!(answer.error(), expected, "{version:?} {seconds}");
        }
    }
}

#[test]
fn malformed_and_missing_signatures_are_refused() {
    let (store, _) = store();
    let date = format_date(SystemTime::now(), TimestampFormat::HttpDate);
    for (headers, expected) in [
        (
            vec![("authorization", "OSS ID"), ("date", date.as_str())],
            error(400, "InvalidArgument"),
        ),
        (
            vec![("authorization", "OSS4-HMAC-SHA256 Credential=ID")],
            error(400, "InvalidArgument"),
        ),
        (
            vec![("authorization", "OSS ID:x")],
            error(403, "AccessDenied"),
        ),
        (
            vec![("authorization", "OSS ID:x"), ("date", "yesterday")],
            error(403, "AccessDenied"),
        ),
        (vec![("x-oss-meta-a", "b")], error(403, "AccessDenied")),
    ] {
        let headers = headers
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let headers: BTreeMap<_, _> = headers.collect();
        let answer = oss("GET", "/bucket/").send_as(&store, &headers);
        assert_eq!(answer.error(), expected, "{headers:?}");
        assert!(!answer.one("HostId").is_empty(), "{}", answer.text());
    }
}

#[test]
fn errors_of_heads_are_in_a_header() {
    let (store, _) = store();
    let head = oss("HEAD", "/bucket/a").send(&store, Version::V1);
    assert_eq!((head.status, head.body.as_slice()), (404, b"".as_slice()));
    let document = STANDARD
        .decode_to_vec(head.header("x-oss-err").unwrap())
        .unwrap();
    let document = String::from_utf8(document).unwrap();
    assert!(document.contains("<Code>NoSuchKey</Code>"), "{document}");
}

#[test]
fn headers_with_an_effect_that_the_store_does_not_have_are_refused() {
    let (store, _) = store();
    let put = oss("PUT", "/bucket/a").header("x-oss-forbid-overwrite", "true");
    let answer = put.send(&store, Version::V1);
    assert_eq!(answer.error(), error(501, "NotImplemented"));
}

#[test]
fn faults_speak_oss_too() {
    let (store, _) = store();
    store.inject("bucket", Fault::Status(503));
    let answer = oss("GET", "/bucket/").send(&store, Version::V1);
    assert_eq!(answer.error(), error(503, "SlowDown"));
    assert!(!answer.one("HostId").is_empty());
    store.clear_faults();
    store.inject("bucket", Fault::Redirect("http://127.0.0.1:1/".to_owned()));
    let answer = oss("GET", "/bucket/").send(&store, Version::V1);
    assert_eq!(answer.status, 301);
    assert_eq!(answer.header("location"), Some("http://127.0.0.1:1/"));
}
