//! The FlexVolume driver `alicloud/oss`: one short-lived process for each call of kubelet's
//! (`pkg/volume/flexvolume/driver-call.go`), which mounts buckets through ossfs.
//!
//! Whatever happens, kubelet gets one line of JSON on stdout, nothing on stderr, and exit status 0:
//! after any other status it would write the call's arguments, keys among them, to its own log.

use alicloud_oss::kubelet::call::Call;
use alicloud_oss::kubelet::response::Response;
use alicloud_oss::sys::process;
use alicloud_oss::{calls, cli, helpers, logging, sandbox, serve};
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
    if let Some(status) = sandbox::run_as(name, &mut args) {
        return status;
    }
    if let Some(status) = serve::run_as(name) {
        return status;
    }
    logging::catch_panics();
    set_up();
    if let Some(status) = helpers::run(name, &mut args) {
        return status;
    }
    match Call::from_args(args) {
        Call::Cli(args) => {
            close_inherited();
            cli::run(&args)
        }
        // It closes what it inherits itself: systemd passes descriptors.
        Call::Serve(args) => calls::serve(&args),
        call => {
            let internal_error = || Response::failure("internal error: see the driver's log");
            catch_unwind(|| answer(&call))
                .unwrap_or_else(|_| internal_error())
                .print();
            ExitCode::SUCCESS
        }
    }
}

/// Best effort, all of it: none of it decides whether the call can be answered.
fn set_up() {
    let _ = prctl::set_dumpable(false);
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    umask(Mode::empty());
    // Child processes start where nothing keeps a file system from being unmounted.
    let _ = std::env::set_current_dir("/");
}

fn answer(call: &Call) -> Response {
    if !matches!(call, Call::Init) {
        // init starts no process.
        close_inherited();
    }
    calls::answer(call)
}

/// No child process inherits what the caller has left open.
fn close_inherited() {
    // Without /proc/self/fd they stay open, and the call can be answered all the same.
    let _ = process::close_inherited();
}
