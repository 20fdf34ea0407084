//! The helper processes of the driver: which work this program does under which name (`argv[0]`).

use crate::calls;
use crate::mounts::unmount::UnmountAll;
use crate::ossfs::probe::Probe;
use crate::sys::helper::{self, Helper as _};
use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

/// Does the work of the helper `name`, with what is left of its `args`. `None` if no helper has that
/// name: then this process answers a call.
pub fn run(name: &OsStr, args: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    match name.to_str()? {
        // As the units of builds before `oss serve` call it.
        "oss-daemon" => Some(calls::serve(&args.collect::<Vec<_>>())),
        Probe::NAME => Some(helper::run::<Probe>(args)),
        UnmountAll::NAME => Some(helper::run::<UnmountAll>(args)),
        _ => None,
    }
}
