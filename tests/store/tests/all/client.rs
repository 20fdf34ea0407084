//! A raw HTTP/1.1 client that signs with version 2 of the signature; version 4 comes with s3fs.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, SystemTime};

use base64_simd::STANDARD;
use s3s::crypto::{Checksum, Sha1, Sha256};
use s3s::dto::{Timestamp, TimestampFormat};
use store::Store;

/// Longer than anything a passing test waits for.
pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) struct Client {
    address: SocketAddr,
    id: &'static str,
    secret: &'static str,
    /// The bucket that goes in front of the host instead of into the path.
    host_bucket: Option<&'static str>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// A store with one key and one bucket, and a client with this key.
pub(crate) fn store() -> (Store, Client) {
    let store = Store::start();
    store.add_key("ID", "secret");
    store.create_bucket("bucket");
    let client = Client::new(&store, "ID", "secret");
    (store, client)
}

/// What [`Answer::error`] is compared to.
pub(crate) fn error(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

impl Client {
    pub(crate) fn new(store: &Store, id: &'static str, secret: &'static str) -> Self {
        Self::at(store.address(), id, secret)
    }

    pub(crate) fn at(address: SocketAddr, id: &'static str, secret: &'static str) -> Self {
        Self {
            address,
            id,
            secret,
            host_bucket: None,
        }
    }

    pub(crate) fn with_host(self, bucket: &'static str) -> Self {
        Self {
            host_bucket: Some(bucket),
            ..self
        }
    }

    pub(crate) fn get(&self, target: &str) -> Answer {
        self.send("GET", target, &[], b"")
    }

    pub(crate) fn head(&self, target: &str) -> Answer {
        self.send("HEAD", target, &[], b"")
    }

    pub(crate) fn put(&self, target: &str, body: &[u8]) -> Answer {
        self.send("PUT", target, &[], body)
    }

    pub(crate) fn send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        self.try_send(method, target, headers, body)
            .expect("an answer")
    }

    pub(crate) fn try_send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Answer> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(LONG))?;
        let host = match self.host_bucket {
            Some(bucket) => format!("{bucket}.localhost:{}", self.address.port()),
            None => self.address.to_string(),
        };
        let date = date()?;
        let signature = self.sign(method, target, headers, &date);
        let mut head = format!(
            "{method} {target} HTTP/1.1\r\nHost: {host}\r\nDate: {date}\r\nConnection: close\r\n"
        );
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("Authorization: AWS {}:{signature}\r\n", self.id);
        head += &format!("Content-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes())?;
        // The server may have answered and closed before it has read all of the body.
        let _ = stream.write_all(body);
        Answer::read(stream)
    }

    fn sign(&self, method: &str, target: &str, headers: &[(&str, &str)], date: &str) -> String {
        let value = |wanted: &str| {
            let header = headers.iter().find(|(name, _)| *name == wanted);
            header.map_or("", |(_, value)| *value)
        };
        let mut text = format!(
            "{method}\n{}\n{}\n{date}\n",
            value("content-md5"),
            value("content-type")
        );
        let mut own: Vec<_> = headers
            .iter()
            .filter(|(name, _)| name.starts_with("x-amz-"))
            .collect();
        own.sort();
        for (name, value) in own {
            let _ = writeln!(text, "{name}:{value}");
        }
        if let Some(bucket) = self.host_bucket {
            text += &format!("/{bucket}");
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let signed = ["delete", "location", "partNumber", "uploadId", "uploads"];
        let mut query: Vec<&str> = query.split('&').collect();
        query.retain(|pair| signed.contains(&pair.split('=').next().unwrap_or(pair)));
        query.sort();
        text += path;
        if !query.is_empty() {
            text += &format!("?{}", query.join("&"));
        }
        STANDARD.encode_to_string(hmac_sha1(self.secret.as_bytes(), text.as_bytes()))
    }
}

impl Answer {
    pub(crate) fn read(mut stream: TcpStream) -> io::Result<Self> {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = head.lines();
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let headers = lines.filter_map(|line| line.split_once(": "));
        Ok(Self {
            status: status.ok_or(io::ErrorKind::InvalidData)?,
            headers: headers
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
                .collect(),
            body: bytes.split_off(end + 4),
        })
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(found, _)| found == name);
        header.map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The texts of all elements of this name.
    pub(crate) fn all(&self, element: &str) -> Vec<String> {
        let text = self.text();
        let (start, end) = (format!("<{element}>"), format!("</{element}>"));
        text.split(&start)
            .skip(1)
            .filter_map(|part| Some(part.split_once(&end)?.0.to_owned()))
            .collect()
    }

    /// The text of the only element of this name, or nothing.
    pub(crate) fn one(&self, element: &str) -> String {
        self.all(element).join("; ")
    }

    /// Status and error code, as they belong together.
    pub(crate) fn error(&self) -> (u16, String) {
        (self.status, self.one("Code"))
    }
}

fn date() -> io::Result<String> {
    let mut date = Vec::new();
    let now = Timestamp::from(SystemTime::now());
    now.format(TimestampFormat::HttpDate, &mut date)
        .map_err(io::Error::other)?;
    String::from_utf8(date).map_err(io::Error::other)
}

pub(crate) fn hmac_sha1(key: &[u8], text: &[u8]) -> [u8; 20] {
    hmac::<Sha1>(key, text)
}

pub(crate) fn hmac_sha256(key: &[u8], text: &[u8]) -> [u8; 32] {
    hmac::<Sha256>(key, text)
}

/// HMAC for keys of at most a block.
fn hmac<H: Checksum>(key: &[u8], text: &[u8]) -> H::Output {
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let digest = |pad: u8, text: &[u8]| {
        let mut hash = H::new();
        hash.update(&block.map(|byte| byte ^ pad));
        hash.update(text);
        hash.finalize()
    };
    digest(0x5c, digest(0x36, text).as_ref())
}
