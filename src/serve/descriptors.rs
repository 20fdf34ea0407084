//! Descriptors that come from, or are kept by, another process: systemd's descriptor store
//! (sd_pid_notify_with_fds(3), sd_listen_fds(3)) or the parent of a volume's process. A FUSE
//! connection lives as long as a descriptor of it does, and cannot be opened a second time.

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use rustix::cmsg_space;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SocketFlags,
    SocketType, recvmsg, socketpair,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};

/// The first descriptor that systemd passes (SD_LISTEN_FDS_START).
const FIRST: RawFd = 3;
/// The most descriptors that one process is passed.
pub(crate) const MAX: usize = 8;
/// The longest message beside a descriptor, in bytes.
const MAX_TEXT: usize = 256;

/// Sends `text` and with it the descriptor of the number `fd`.
pub(crate) fn send(socket: BorrowedFd<'_>, text: &str, fd: RawFd) -> Result<(), Errno> {
    loop {
        let sent = sendmsg::<UnixAddr>(
            socket.as_raw_fd(),
            &[IoSlice::new(text.as_bytes())],
            &[ControlMessage::ScmRights(&[fd])],
            MsgFlags::MSG_NOSIGNAL,
            None,
        );
        match sent {
            Err(Errno::EINTR) => {}
            other => return other.map(|_| ()),
        }
    }
}

/// One message and the descriptor that came with it, close-on-exec. None at the end of the stream.
pub(crate) fn receive(socket: BorrowedFd<'_>) -> Result<Option<(String, Option<OwnedFd>)>> {
    let mut text = [0; MAX_TEXT];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let message = loop {
        let mut parts = [IoSliceMut::new(&mut text)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        match recvmsg(socket, &mut parts, &mut ancillary, flags) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other.context("receive a descriptor")?,
        }
    };
    // What is not kept here is closed.
    let mut fds = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten();
    let fd = fds.next();
    fds.for_each(drop);
    if message.bytes == 0 && fd.is_none() {
        return Ok(None);
    }
    if message.flags.contains(ReturnFlags::TRUNC) {
        bail!("a message of more than {MAX_TEXT} bytes came with a descriptor");
    }
    let text = String::from_utf8_lossy(&text[..message.bytes]).into_owned();
    Ok(Some((text, fd)))
}

/// Takes over the descriptor `number`, which this process inherited and nothing in it owns yet.
/// The number itself is closed. There is no safe call that does this directly, so it is sent to
/// ourselves.
fn adopt(number: RawFd) -> Result<OwnedFd> {
    let (here, there) = pair().context("make a socket pair")?;
    send(here.as_fd(), "adopt", number)
        .with_context(|| format!("take over the inherited descriptor {number}"))?;
    let received = receive(there.as_fd())?.and_then(|(_, fd)| fd);
    let own = received.with_context(|| format!("take over the inherited descriptor {number}"))?;
    // It was open a moment ago.
    let _ = nix::unistd::close(number);
    Ok(own)
}

/// A pair of connected sockets that keep the bounds of messages.
pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd), rustix::io::Errno> {
    socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
}

/// The descriptors that systemd passes to the process `pid`, named as they were stored. Everything
/// else that was inherited, stdin, stdout and stderr apart, is closed. To be called once, before
/// anything is opened: a number that this process owns would be closed.
///
/// # Errors
/// Variables that make no sense, or a number that is not open.
pub(crate) fn take_inherited(pid: u32) -> Result<Vec<(String, OwnedFd)>> {
    let variable = |name| std::env::var(name).ok();
    let names = passed(
        pid,
        variable("LISTEN_PID").as_deref(),
        variable("LISTEN_FDS").as_deref(),
        variable("LISTEN_FDNAMES").as_deref(),
    )?;
    close_from(FIRST + RawFd::try_from(names.len()).unwrap_or(0))?;
    names
        .into_iter()
        .zip(FIRST..)
        .map(|(name, number)| Ok((name, adopt(number)?)))
        .collect()
}

/// The names of the descriptors from 3 on that belong to the process `pid`.
fn passed(
    pid: u32,
    listen_pid: Option<&str>,
    listen_fds: Option<&str>,
    names: Option<&str>,
) -> Result<Vec<String>> {
    let (Some(listen_pid), Some(count)) = (listen_pid, listen_fds) else {
        return Ok(Vec::new());
    };
    if listen_pid.trim().parse() != Ok(pid) {
        return Ok(Vec::new());
    }
    let count: usize = count
        .trim()
        .parse()
        .with_context(|| format!("LISTEN_FDS {count:?} is not a number"))?;
    if count > MAX {
        bail!("LISTEN_FDS {count} is too many: up to {MAX} are expected");
    }
    let mut names = names.unwrap_or_default().split(':');
    Ok((0..count)
        .map(|_| names.next().unwrap_or_default().to_owned())
        .collect())
}

/// Closes every descriptor from `first` on.
fn close_from(first: RawFd) -> Result<()> {
    let path = "/proc/self/fd";
    let numbers: Vec<RawFd> = std::fs::read_dir(path)
        .with_context(|| format!("list {path}"))?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|number| *number >= first)
        .collect();
    for number in numbers {
        // The listing's own descriptor is closed already.
        let _ = nix::unistd::close(number);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{adopt, pair, passed, receive, send};
    use std::io::{Read as _, Write as _, pipe};
    use std::os::fd::{AsFd as _, AsRawFd as _, IntoRawFd as _, OwnedFd};

    #[test]
    fn knows_what_systemd_passed() {
        let (one, two) = (Some("1"), Some("2"));
        let names = |pid, fds, names| passed(7, pid, fds, names).unwrap();
        assert_eq!(names(None, one, None), [""; 0]);
        assert_eq!(names(Some("8"), one, Some("fuse")), [""; 0]);
        assert_eq!(names(Some("7"), one, Some("fuse")), ["fuse"]);
        assert_eq!(names(Some("7"), two, Some("fuse")), ["fuse", ""]);
        assert_eq!(names(Some("7"), two, None), ["", ""]);
        for count in ["x", "-1", "9", "4294967296"] {
            assert!(passed(7, Some("7"), Some(count), None).is_err(), "{count}");
        }
    }

    #[test]
    fn a_descriptor_is_sent_and_taken_over() {
        let (here, there) = pair().unwrap();
        let (mut reader, writer) = pipe().unwrap();
        send(here.as_fd(), "store fuse", writer.as_raw_fd()).unwrap();
        drop(writer);
        let (text, fd) = receive(there.as_fd()).unwrap().unwrap();
        assert_eq!(text, "store fuse");
        let fd: OwnedFd = adopt(fd.unwrap().into_raw_fd()).unwrap();
        std::fs::File::from(fd).write_all(b"x").unwrap();
        let mut read = String::new();
        reader.read_to_string(&mut read).unwrap();
        assert_eq!(read, "x");
        drop(here);
        assert!(receive(there.as_fd()).unwrap().is_none());
    }
}
