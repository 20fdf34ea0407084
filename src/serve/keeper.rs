//! Whoever keeps the FUSE descriptor while the volume's process is replaced: systemd's descriptor
//! store, or a parent process.

use crate::serve::descriptors::{self, send};
use anyhow::{Context as _, Result};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, sendmsg, socket,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::SendFlags;
use std::ffi::OsStr;
use std::io::IoSlice;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;

/// The name under which the FUSE descriptor is kept.
pub(crate) const FUSE: &str = "fuse";
/// What a child tells its parent to have a descriptor kept, before the name.
pub(crate) const KEEP: &str = "keep ";
/// What a child tells its parent to have a descriptor closed, before the name.
pub(crate) const FORGET: &str = "forget ";
/// What a parent tells its child after the descriptors that it has kept.
pub(crate) const END: &str = "end";

/// Who keeps descriptors for this process.
pub(crate) enum Keeper {
    /// systemd, which listens at this address (`$NOTIFY_SOCKET`).
    Systemd(UnixAddr),
    /// A parent at the other end.
    Parent(OwnedFd),
    /// Nobody: with this process the mount is lost.
    Nobody,
}

impl Keeper {
    /// systemd, if it started this process and listens to it.
    pub(crate) fn systemd() -> Self {
        let address = std::env::var_os("NOTIFY_SOCKET").and_then(|name| address(&name));
        address.map_or(Self::Nobody, Self::Systemd)
    }

    /// The parent at the other end of stdin, and what it has kept. This process ends with it from here
    /// on: whoever ends the parent wants the volume ended.
    ///
    /// # Errors
    /// stdin is no such socket.
    pub(crate) fn parent() -> Result<(Self, Vec<(String, OwnedFd)>)> {
        prctl::set_pdeathsig(Signal::SIGKILL).context("set the parent-death signal")?;
        let socket = std::io::stdin()
            .as_fd()
            .try_clone_to_owned()
            .context("duplicate stdin")?;
        let mut kept = Vec::new();
        while let Some((text, fd)) = descriptors::receive(socket.as_fd())? {
            match fd {
                Some(fd) => kept.push((text, fd)),
                None if text == END && is_connected(&socket) => {
                    return Ok((Self::Parent(socket), kept));
                }
                None => {}
            }
        }
        anyhow::bail!("the parent has ended");
    }

    /// Has the descriptor `fd` kept under the name `name`.
    ///
    /// # Errors
    /// The keeper has gone.
    pub(crate) fn keep(&self, name: &str, fd: RawFd) -> Result<()> {
        match self {
            Self::Systemd(_) => self.notify(&format!("FDSTORE=1\nFDNAME={name}"), &[fd]),
            Self::Parent(socket) => send(socket.as_fd(), &format!("{KEEP}{name}"), fd)
                .context("hand a descriptor to the parent process"),
            Self::Nobody => Ok(()),
        }
    }

    /// Has what is kept under the name `name` closed.
    ///
    /// # Errors
    /// The keeper has gone.
    pub(crate) fn forget(&self, name: &str) -> Result<()> {
        match self {
            Self::Systemd(_) => self.notify(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), &[]),
            Self::Parent(socket) => {
                let text = format!("{FORGET}{name}");
                rustix::net::send(socket, text.as_bytes(), SendFlags::NOSIGNAL)
                    .context("tell the parent process")?;
                Ok(())
            }
            Self::Nobody => Ok(()),
        }
    }

    /// Tells systemd that the process listens (sd_notify(3)).
    pub(crate) fn ready(&self) -> Result<()> {
        match self {
            Self::Systemd(_) => self.notify("READY=1", &[]),
            _ => Ok(()),
        }
    }

    fn notify(&self, text: &str, fds: &[RawFd]) -> Result<()> {
        let Self::Systemd(address) = self else {
            return Ok(());
        };
        let socket = socket(
            AddressFamily::Unix,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .context("make a socket")?;
        let rights = [ControlMessage::ScmRights(fds)];
        sendmsg(
            socket.as_raw_fd(),
            &[IoSlice::new(text.as_bytes())],
            if fds.is_empty() { &[] } else { &rights },
            MsgFlags::MSG_NOSIGNAL,
            Some(address),
        )
        .context("notify systemd")?;
        Ok(())
    }
}

/// Whether there is still somebody at the other end.
fn is_connected(socket: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::empty())];
    poll(&mut fds, Some(&Timespec::default())).is_ok() && fds[0].revents().is_empty()
}

/// The address in `$NOTIFY_SOCKET`: a path, or a name in the abstract namespace after `@`.
fn address(name: &OsStr) -> Option<UnixAddr> {
    match name.as_bytes() {
        [b'@', rest @ ..] => UnixAddr::new_abstract(rest).ok(),
        [b'/', ..] => UnixAddr::new(name).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{FUSE, Keeper, address};
    use crate::serve::descriptors;
    use std::ffi::OsStr;
    use std::io::pipe;
    use std::os::fd::{AsFd as _, AsRawFd as _};
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn knows_the_two_forms_of_an_address() {
        let of = |text| address(OsStr::new(text));
        assert!(of("/run/systemd/notify").is_some_and(|at| at.path().is_some()));
        assert!(of("@notify").is_some_and(|at| at.as_abstract() == Some(b"notify".as_slice())));
        assert!(of("vsock:2:1").is_none());
        assert!(of("").is_none());
    }

    #[test]
    fn systemd_gets_the_descriptor_and_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        let keeper = Keeper::Systemd(address(path.as_os_str()).unwrap());
        let (_reader, writer) = pipe().unwrap();
        keeper.keep(FUSE, writer.as_raw_fd()).unwrap();
        keeper.forget(FUSE).unwrap();
        let (text, fd) = descriptors::receive(systemd.as_fd()).unwrap().unwrap();
        assert_eq!(
            (text.as_str(), fd.is_some()),
            ("FDSTORE=1\nFDNAME=fuse", true)
        );
        let (text, fd) = descriptors::receive(systemd.as_fd()).unwrap().unwrap();
        assert_eq!(
            (text.as_str(), fd.is_some()),
            ("FDSTOREREMOVE=1\nFDNAME=fuse", false)
        );
    }
}
