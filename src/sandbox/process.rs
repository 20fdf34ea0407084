//! The process that builds the sandbox. It runs as root until everything is built; what it reads is
//! its caller's, never the daemon's.

use super::Spec;
use super::channel::{Report, Start, receive_start, send};
use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::setsid;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};
use std::io::stdin;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// Where the programs named `fusermount` may be that libfuse has been built to run.
const PROGRAMS: [&str; 6] = [
    "/usr/bin",
    "/bin",
    "/usr/sbin",
    "/sbin",
    "/usr/local/bin",
    "/usr/local/sbin",
];
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Builds what the first message on stdin asks for and becomes, or watches, ossfs. Whatever goes
/// wrong before is reported to the caller.
pub(super) fn run() -> ExitCode {
    let Ok(control) = stdin().as_fd().try_clone_to_owned() else {
        return ExitCode::FAILURE;
    };
    let control = UnixStream::from(control);
    let Err(error) = build(&control);
    // The caller may be gone: then nobody waits for the report.
    let _ = send(&control, &Report::Failed(format!("{error:#}")));
    ExitCode::FAILURE
}

fn build(control: &UnixStream) -> Result<std::convert::Infallible> {
    // The caller may have signals blocked, which it reads otherwise.
    SigSet::empty()
        .thread_set_mask()
        .context("unblock signals")?;
    let (start, descriptors) = receive_start(control).context("hear what to run")?;
    let Start { spec, .. } = start;
    // It is the leader of a session already if the caller made it so.
    let _ = setsid();
    let stub = unconfined(&spec)?;
    prctl::set_pdeathsig(Signal::SIGKILL).context("end with the caller")?;
    fcntl_setfd(&descriptors.life, FdFlags::empty()).context("keep the pipe open")?;
    send(
        control,
        &Report::Built {
            left_out: Vec::new(),
            user_namespace: false,
            watched: false,
        },
    )?;
    let mut command = Command::new(&spec.program);
    command
        .args(&spec.arguments)
        .env_clear()
        .env("PATH", format!("{}:{PATH}", stub.display()))
        .env("HOME", "/tmp")
        .stdin(descriptors.fuse)
        .stdout(descriptors.output.try_clone()?)
        .stderr(Stdio::from(descriptors.output));
    let error = command.exec();
    Err(error).with_context(|| format!("start {}", spec.program.display()))
}

/// Has libfuse find the stub, and mount(2) fail, in a mount namespace that is otherwise the node's.
/// Returns the directory with the stub.
fn unconfined(spec: &Spec) -> Result<PathBuf> {
    let nothing = None::<&Path>;
    let own = std::env::current_exe().context("find this program")?;
    unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
    mount(
        nothing,
        "/",
        nothing,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        nothing,
    )
    .context("make the mounts private")?;
    // The mount that waits for this daemon: its own stat(2) of it would wait for itself.
    match umount2(&spec.mount_point, MntFlags::MNT_DETACH) {
        // It is relayed from elsewhere, or another process has taken it away.
        Ok(()) | Err(Errno::EINVAL) => {}
        Err(e) => {
            return Err(e).with_context(|| format!("detach {}", spec.mount_point.display()));
        }
    }
    mount(
        Some("oss"),
        &spec.root,
        Some("tmpfs"),
        MsFlags::MS_NOSUID,
        Some("size=64k,mode=755"),
    )
    .context("mount a tmpfs")?;
    for name in ["fusermount", "fusermount3"] {
        let stub = spec.root.join(name);
        std::fs::write(&stub, "").with_context(|| format!("create {}", stub.display()))?;
        let places = PROGRAMS.iter().map(|place| Path::new(place).join(name));
        for place in places.filter(|place| place.exists()).chain([stub]) {
            mount(Some(&own), &place, nothing, MsFlags::MS_BIND, nothing)
                .with_context(|| format!("bind {} over {}", own.display(), place.display()))?;
        }
    }
    remove_capability_from_bounding_set(CapabilitySet::SYS_ADMIN)
        .context("drop the right to mount")?;
    Ok(spec.root.clone())
}
