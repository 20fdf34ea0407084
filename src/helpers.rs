//! The helper processes of the driver: which work this program does under which name (`argv[0]`).

use crate::calls;
use crate::mounts::replace::Replace;
use crate::mounts::unmount::UnmountAll;
use crate::ossfs::launch;
use crate::ossfs::probe::Probe;
use crate::sys::helper::{self, Helper as _};
use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

/// Does the work of the helper `name`, with what is left of its `args`. `None` if no helper has that
/// name: then this process answers a call.
pub fn run(name: &OsStr, args: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    match name.to_str()? {
        launch::DAEMON => {
            let args: Vec<OsString> = args.collect();
            Some(match launch::is_relayed(&args) {
                true => calls::serve(&args),
                false => launch::run(args.into_iter()),
            })
        }
        Probe::NAME => Some(helper::run::<Probe>(args)),
        Replace::NAME => Some(helper::run::<Replace>(args)),
        UnmountAll::NAME => Some(helper::run::<UnmountAll>(args)),
        _ => None,
    }
}
