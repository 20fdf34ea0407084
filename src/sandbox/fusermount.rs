//! The program that libfuse takes for `fusermount` (fusermount(1), libfuse's `lib/mount.c`): it
//! answers over the socket whose number `_FUSE_COMMFD` names with the FUSE descriptor that ossfs
//! was started with as its standard input. Nothing is mounted: that has been done already.

use anyhow::{Context as _, Result};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::ffi::OsString;
use std::io::{IoSlice, Write as _};
use std::process::ExitCode;

/// Sends the descriptor; status 1 and a line on stderr if there is nobody who takes it.
/// To unmount is no work of ossfs: `-u` succeeds and does nothing.
pub(super) fn run(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    if arguments.any(|argument| argument == "-u") {
        return ExitCode::SUCCESS;
    }
    match answer() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may be reading: the exit status tells as well.
            let _ = writeln!(std::io::stderr(), "fusermount: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn answer() -> Result<()> {
    let number = std::env::var("_FUSE_COMMFD").context("read _FUSE_COMMFD")?;
    let socket: i32 = number
        .parse()
        .with_context(|| format!("read _FUSE_COMMFD {number:?}"))?;
    let stdin = [0];
    let message = [IoSlice::new(b"\0")];
    let descriptors = [ControlMessage::ScmRights(&stdin)];
    sendmsg::<()>(socket, &message, &descriptors, MsgFlags::MSG_NOSIGNAL, None)
        .context("send the FUSE descriptor")?;
    Ok(())
}
