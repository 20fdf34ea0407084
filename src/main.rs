//! The FlexVolume driver `alicloud/oss`: one short-lived process a call of kubelet's
//! (`pkg/volume/flexvolume/driver-call.go`), which mounts buckets through ossfs.
//!
//! Whatever happens, kubelet gets one line of JSON on stdout, nothing on stderr, and exit status 0:
//! after any other status it would write the call's arguments, keys among them, to its own log.

mod answer;
mod call;
mod calls;
mod child;
mod config;
mod credentials;
mod deadline;
mod fault;
mod lock;
mod logging;
mod mounts;
mod ossfs;
mod person;
mod private;
mod process;
mod request;
mod stamp;
mod target;
mod volume;

use answer::Answer;
use call::Call;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode, umask};
use std::env::args_os;
use std::ffi::OsStr;
use std::panic::catch_unwind;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = args_os();
    let name = args.next().unwrap_or_default();
    let name = Path::new(&name).file_name().unwrap_or(OsStr::new(""));
    if let Some(status) = alicloud_oss::sandbox::run_as(name, args) {
        return status;
    }
    logging::catch_panics();
    let internal_error =
        || Outcome::Answer(Answer::failure("internal error: see the driver's log"));
    match catch_unwind(run).unwrap_or_else(|_| internal_error()) {
        Outcome::Answer(answer) => {
            answer.print();
            ExitCode::SUCCESS
        }
        Outcome::Done(status) => status,
    }
}

/// What a run ends in: an answer for kubelet, or the exit status of anything else.
enum Outcome {
    Answer(Answer),
    Done(ExitCode),
}

/// Does what this process was started for: a call of kubelet's, a person's word, or a child's part.
fn run() -> Outcome {
    // Best effort, all of it: none of it decides whether the call can be answered.
    let _ = prctl::set_dumpable(false);
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    umask(Mode::empty());
    // Children begin where nothing keeps a file system from being unmounted.
    let _ = std::env::set_current_dir("/");

    let mut args = args_os();
    let name = args.next().unwrap_or_default();
    let name = Path::new(&name).file_name().unwrap_or(OsStr::new(""));
    if let Some(words) = child::run(&mut args, name) {
        child::print(&words);
        return Outcome::Done(ExitCode::SUCCESS);
    }
    let call = Call::from_args(args);
    if !matches!(call, Call::Init) {
        // No child inherits what the caller has left open; init starts none.
        let _ = process::close_inherited();
    }
    match call {
        Call::Person(args) => Outcome::Done(person::run(&args)),
        call => Outcome::Answer(calls::answer(&call)),
    }
}
