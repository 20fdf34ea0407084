//! The process of a volume, `oss serve DIRECTORY`: it keeps the FUSE connection, and the daemon
//! works for it, sandboxed, at the other end of a socket. When the daemon ends, another takes over
//! while the mount stays.
//!
//! ```text
//! with systemd:     systemd -- oss serve DIRECTORY          (the descriptor is in systemd's store)
//!                                `-- daemon
//! without systemd:  oss serve --parent DIRECTORY            (keeps the descriptor, only waits)
//!                     `-- oss serve --child DIRECTORY
//!                           `-- daemon
//! ```
//! In the volume's directory:
//! ```text
//! serve.json   the plan: how the volume is served (written by the mount call)
//! staging/     the mount (made by the mount call)
//! socket       the control socket
//! failure      why the process could not begin to serve
//! nodes        the relay's tables, for a successor
//! inflight     the requests under way, for a successor
//! sandbox/     the mount point of the daemon's root directory
//! live/        copies of /etc/resolv.conf and the like that are kept current
//! ```

mod bare;
pub mod client;
mod connection;
mod control;
mod daemon;
mod daemon_spec;
mod descriptors;
mod ends;
mod event_loop;
pub(crate) mod failure;
mod journal;
mod keeper;
mod lost;
mod notifier;
mod output;
mod parent;
pub mod plan;
pub mod protocol;
pub mod relay;
pub(crate) mod role;
mod run;
mod shared;
mod shutdown;
mod signals;
mod starts;

pub use role::PARENT;

use anyhow::Result;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

/// Does the work of a process that was started under the name `oss-notify`, and returns its exit
/// status; nothing for any other name.
pub fn run_as(name: &OsStr) -> Option<ExitCode> {
    (name == notifier::NOTIFY).then(|| match notifier::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}

/// Serves a volume as `args` (what follows `oss serve`) say, and returns when it is unmounted. To be
/// called first of all, while this process has one thread and has opened nothing.
///
/// The status is 0 when the volume was unmounted, 3 when it could not begin to be served (the
/// reason is in the volume's directory), 2 when the arguments make no sense, and 1 when the process
/// is to be started again.
///
/// `on_new_mount` is called after a new mount was made, rather than one taken over from a process
/// that was killed.
pub fn main(args: impl IntoIterator<Item = OsString>, on_new_mount: &dyn Fn()) -> ExitCode {
    run::main(args, on_new_mount)
}

/// Removes what the process of the volume at `volume` made there, as far as it is there: the process
/// has ended, or was killed.
pub(crate) fn remove_files(volume: &Path) -> Result<()> {
    run::remove_files(volume)
}
