//! Runs ossfs without root: in namespaces and a root file system of its own, without capabilities,
//! under a uid of its volume, with the FUSE descriptor as its standard input.
//!
//! ossfs gets that descriptor the way libfuse asks for it where mount(2) gives EPERM: it runs
//! `fusermount`, which is this program under that name ([`run_as`]). The process that builds the
//! sandbox is this program too, as `oss-sandbox`: it has one thread, as unshare(2) demands for a
//! user namespace, and hears on its standard input what to do. What a node lacks is left out and
//! reported; the rest holds.

mod builder;
mod cgroup;
mod channel;
mod filter;
mod fusermount;
mod identity;
mod limits;
mod live_files;
mod root;
mod spawn;
mod spec;
mod stub;
mod tree;
mod unconfined;
mod watch;

pub use cgroup::Group;
pub use live_files::LiveFiles;
pub use spawn::{Sandboxed, spawn};
pub use spec::{End, Mode, Reachable, Spec};

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

/// Does the work of a process that was started under the name `oss-sandbox`, `fusermount` or
/// `fusermount3`, and returns its exit status; nothing for any other name. To be called before the
/// process has a second thread or writes anything.
pub fn run_as(name: &OsStr, arguments: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    match name.to_str()? {
        spec::BUILDER => Some(builder::run(arguments)),
        "fusermount" | "fusermount3" => Some(fusermount::run(arguments)),
        _ => None,
    }
}
