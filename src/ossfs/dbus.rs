//! Requests to systemd over its private socket: D-Bus without the message bus (D-Bus specification 0.43;
//! systemd's `src/core/dbus.c`). A call takes two milliseconds where `systemctl` takes twelve, for it is
//! no program of twenty libraries. Who connects is root by the socket's credentials, and no name is
//! asked for. systemd ends such connections when it executes itself anew.

mod marshal;
#[cfg(test)]
mod tests;

pub(crate) use marshal::Body;

use crate::sys::deadline::Deadline;
use anyhow::{Context as _, Result, bail, ensure};
use marshal::{ERROR, ERROR_NAME, MEMBER, REPLY_SERIAL, RETURN, Reader, SIGNAL, message};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Where systemd listens, for root alone.
pub(crate) const SOCKET: &str = "/run/systemd/private";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
/// The largest message that is read, in bytes: signals about other units come in between.
const MAX_MESSAGE: usize = 1 << 20;
/// The longest line of the authentication, in bytes.
const MAX_LINE: usize = 256;

/// A connection to systemd.
pub(crate) struct Connection {
    stream: UnixStream,
    serial: u32,
    deadline: Deadline,
}

/// systemd has understood a call and refused it: its own message.
#[derive(Debug)]
pub(crate) struct Refused(pub(crate) String);

impl std::fmt::Display for Refused {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

impl Connection {
    /// Connects to the socket at `path`; every call on it must be over by `deadline`.
    pub(crate) fn open(path: &Path, deadline: Deadline) -> Result<Self> {
        let what = || format!("connect to {}", path.display());
        let stream = UnixStream::connect(path).with_context(what)?;
        let mut connection = Self {
            stream,
            serial: 0,
            deadline,
        };
        connection.authenticate().with_context(what)?;
        Ok(connection)
    }

    /// As root ("0" in hexadecimal digits). The first message must wait for the answer, and what ends
    /// the authentication must not: where systemd reads that together with the first message, it looks
    /// at the message only when another comes (seen with systemd 252 on a busy machine).
    fn authenticate(&mut self) -> Result<()> {
        self.write(b"\0AUTH EXTERNAL 30\r\nBEGIN\r\n")?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            ensure!(line.len() < MAX_LINE, "a line of the answer is too long");
            line.push(self.read::<1>()?[0]);
        }
        ensure!(
            line.starts_with(b"OK "),
            "systemd refused the authentication"
        );
        Ok(())
    }

    /// Calls `method` of systemd's manager and returns the body of the answer.
    ///
    /// # Errors
    /// [`Refused`] if systemd says no; else the connection is of no more use.
    pub(crate) fn call(&mut self, method: &str, body: &Body) -> Result<Vec<u8>> {
        self.call_of(MANAGER, method, body)
    }

    /// A property of the manager that is a string.
    pub(crate) fn string_property(&mut self, name: &str) -> Result<String> {
        let mut body = Body::default();
        body.string(MANAGER).string(name);
        let answer = self.call_of(PROPERTIES, "Get", &body)?;
        let mut reader = Reader::new(&answer);
        ensure!(reader.signature()? == "s", "{name} is not a string");
        reader.string()
    }

    fn call_of(&mut self, interface: &str, method: &str, body: &Body) -> Result<Vec<u8>> {
        self.serial += 1;
        let message = message(self.serial, interface, method, body);
        self.write(&message)
            .with_context(|| format!("call {method}"))?;
        loop {
            let message = self.receive().with_context(|| format!("call {method}"))?;
            if message.kind == SIGNAL || message.reply_to != Some(self.serial) {
                continue;
            }
            return match message.kind {
                RETURN => Ok(message.body),
                ERROR => {
                    let text = Reader::new(&message.body).string();
                    Err(Refused(text.unwrap_or(message.name)).into())
                }
                kind => bail!("call {method}: the answer is a message of type {kind}"),
            };
        }
    }

    /// Waits until the job at the path `job`, which a call has just answered, is over, and returns its
    /// result: "done" where all is well. On this socket systemd sends its signals unasked.
    pub(crate) fn wait_for_job(&mut self, job: &str) -> Result<String> {
        loop {
            let message = self.receive().context("wait for systemd")?;
            if message.kind != SIGNAL || message.name != "JobRemoved" {
                continue;
            }
            let mut reader = Reader::new(&message.body);
            let (_id, path) = (reader.number()?, reader.string()?);
            if path == job {
                let _unit = reader.string()?;
                return reader.string();
            }
        }
    }

    fn receive(&mut self) -> Result<Message> {
        let fixed = self.read::<16>()?;
        let number = |at: usize| {
            let bytes = [fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]];
            usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX)
        };
        ensure!(fixed[0] == b'l', "a message is not little-endian");
        let (body, fields) = (number(4), number(12));
        let padded = fields.saturating_add(7) & !7;
        ensure!(
            body <= MAX_MESSAGE && padded <= MAX_MESSAGE,
            "a message is larger than {MAX_MESSAGE} bytes"
        );
        let mut header = vec![0; padded];
        self.fill(&mut header)?;
        header.truncate(fields);
        let mut message = Message {
            kind: fixed[1],
            name: String::new(),
            reply_to: None,
            body: vec![0; body],
        };
        self.fill(&mut message.body)?;
        let mut reader = Reader::new(&header);
        while !reader.is_at_end() {
            reader.align(8);
            let field = reader.byte()?;
            match (field, reader.signature()?.as_str()) {
                (REPLY_SERIAL, "u") => message.reply_to = Some(reader.number()?),
                (MEMBER | ERROR_NAME, "s") => message.name = reader.string()?,
                (_, "s" | "o") => drop(reader.string()?),
                (_, "g") => drop(reader.signature()?),
                (_, "u") => drop(reader.number()?),
                (_, other) => bail!("a header field of type {other:?}"),
            }
        }
        Ok(message)
    }

    fn read<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        self.stream.read_exact(bytes)?;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write_all(bytes)?;
        Ok(())
    }

    fn left(&self) -> Result<Duration> {
        let left = self.deadline.remaining();
        ensure!(!left.is_zero(), "timed out");
        Ok(left)
    }
}

/// What is of use of a message.
struct Message {
    kind: u8,
    /// The member of a signal, or the name of an error.
    name: String,
    reply_to: Option<u32>,
    body: Vec<u8>,
}

/// The string or object path that is the whole of an answer.
pub(crate) fn string_of(body: &[u8]) -> Result<String> {
    Reader::new(body).string()
}
