//! What the process that wants a sandbox and the one that builds it tell each other: one line of
//! JSON a message, over a pair of sockets. It ends when either process does.

use super::spec::{End, Spec};
use anyhow::{Context as _, Result, bail};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{ErrorKind, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

/// Longest line that is read, in bytes; a list of arguments is far below.
const LONGEST: usize = 1 << 20;

/// The first message, with the descriptors of [`Descriptors`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Start {
    pub(super) spec: Spec,
    /// The caller's time zone, `TZ` of environ(7).
    pub(super) time_zone: Option<String>,
}

/// What the builder is given besides words.
pub(super) struct Descriptors {
    /// The standard input of ossfs.
    pub(super) fuse: OwnedFd,
    /// Its standard output and error output.
    pub(super) output: OwnedFd,
    /// Open for as long as ossfs runs.
    pub(super) life: OwnedFd,
}

/// What the builder reports.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Report {
    /// It is in a new user namespace, whose ids are to be mapped now; then [`Mapped`] is awaited.
    MapIds,
    /// All is built.
    #[serde(rename_all = "camelCase")]
    Built {
        left_out: Vec<String>,
        user_namespace: bool,
        /// Whether ossfs will be a child of the builder; otherwise the builder becomes ossfs, and
        /// the end of this channel says that it did.
        watched: bool,
    },
    /// ossfs runs.
    Started,
    /// ossfs does not run, and never will.
    Failed(String),
    /// ossfs ran and ended.
    Ended(End),
}

/// The answer to [`Report::MapIds`]: whether they are mapped.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Mapped(pub(super) bool);

pub(super) fn send(socket: &UnixStream, message: &impl Serialize) -> Result<()> {
    let mut socket = socket;
    socket.write_all(&line(message)?)?;
    Ok(())
}

fn line(message: &impl Serialize) -> Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

/// The next message; nothing at the channel's end. An error past the socket's time limit.
pub(super) fn receive<T: DeserializeOwned>(mut socket: &UnixStream) -> Result<Option<T>> {
    let mut line = Vec::new();
    // A byte at a time: nothing after the line may be taken.
    let mut byte = [0];
    while line.last() != Some(&b'\n') {
        if line.len() > LONGEST {
            bail!("a message is longer than {LONGEST} bytes");
        }
        match socket.read(&mut byte) {
            Ok(0) if line.is_empty() => return Ok(None),
            Ok(0) => bail!("a message is truncated"),
            Ok(_) => line.push(byte[0]),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            // The other end was closed with something unread.
            Err(e) if e.kind() == ErrorKind::ConnectionReset => return Ok(None),
            Err(e) => return Err(e.into()),
        }
    }
    Ok(Some(serde_json::from_slice(&line)?))
}

pub(super) fn send_start(
    socket: &UnixStream,
    start: &Start,
    descriptors: &Descriptors,
) -> Result<()> {
    let line = line(start)?;
    let all = [
        descriptors.fuse.as_fd(),
        descriptors.output.as_fd(),
        descriptors.life.as_fd(),
    ];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&all));
    let length = u32::try_from(line.len())?.to_ne_bytes();
    let sent = sendmsg(
        socket,
        &[IoSlice::new(&length)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?;
    if sent != length.len() {
        bail!("the message was truncated");
    }
    let mut socket = socket;
    socket.write_all(&line)?;
    Ok(())
}

/// The first message and its descriptors; an error if the channel ends before.
pub(super) fn receive_start(mut socket: &UnixStream) -> Result<(Start, Descriptors)> {
    let mut length = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut length)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    if received.bytes != length.len() {
        bail!("no message came");
    }
    let mut descriptors = ancillary.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect(),
        _ => Vec::new(),
    });
    let mut next = || descriptors.next().context("a descriptor is missing");
    let descriptors = Descriptors {
        fuse: next()?,
        output: next()?,
        life: next()?,
    };
    let length = usize::try_from(u32::from_ne_bytes(length))?;
    if length > LONGEST {
        bail!("a message is longer than {LONGEST} bytes");
    }
    let mut line = vec![0; length];
    socket.read_exact(&mut line)?;
    Ok((serde_json::from_slice(&line)?, descriptors))
}
