//! The process that builds a sandbox and becomes ossfs or, as the first process of a PID namespace,
//! watches it. It reads what its caller sends, never anything of the daemon's.

use super::channel::{Descriptors, Mapped, Report, receive, receive_start, send};
use super::spec::{BUILDER, End, Mode, Spec};
use super::tree::Found;
use super::{filter, identity, limits, root, unconfined, watch};
use crate::sys::command::PATH;
use crate::sys::process::close_inherited;
use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode as Permissions, umask};
use nix::unistd::{getpid, setsid};
use rustix::io::{FdFlags, fcntl_setfd};
use std::convert::Infallible;
use std::ffi::OsString;
use std::io::stdin;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitCode, Stdio};

/// The argument that asks for a PID namespace, where the caller has more than one thread and its
/// kernel refuses it one for that (before Linux 3.13).
pub(super) const OWN_PID_NAMESPACE: &str = "own-pid-namespace";

/// What all steps share.
struct Builder {
    control: UnixStream,
    left_out: Vec<String>,
    user_namespace: bool,
}

/// Does what the first message on stdin asks for. Whatever goes wrong before ossfs runs is reported
/// to the caller.
pub(super) fn run(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    // Without /proc/self/fd they stay open: the caller marks its own close-on-exec.
    let _ = close_inherited();
    let Ok(control) = stdin().as_fd().try_clone_to_owned() else {
        return ExitCode::FAILURE;
    };
    let mut builder = Builder {
        control: control.into(),
        left_out: Vec::new(),
        user_namespace: false,
    };
    let own = arguments.any(|argument| argument == OWN_PID_NAMESPACE);
    // CLONE_FS, which changes nothing here, tells this call from the one that the caller has tried.
    let namespace = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_FS;
    let result = match own.then(|| unshare(namespace)) {
        Some(Ok(())) => stand_by(&builder.control),
        _ => builder.run(),
    };
    result.unwrap_or_else(|error| {
        // The caller may be gone: then nobody waits for the report.
        let _ = send(&builder.control, &Report::Failed(format!("{error:#}")));
        ExitCode::FAILURE
    })
}

/// Runs the builder as the first process of this process's new PID namespace, and ends with it.
fn stand_by(control: &UnixStream) -> Result<ExitCode> {
    let mut command = Command::new("/proc/self/exe");
    // With a uid std forks; vfork(2) is refused there by kernels before 3.12.
    command
        .arg0(BUILDER)
        .env_clear()
        .stdin(OwnedFd::from(control.try_clone()?))
        .uid(0);
    let mut child = command.spawn().context("start a second process")?;
    drop(command);
    let status = child.wait().context("wait for the sandbox")?;
    if let Some(signal) = status.signal() {
        // Its watcher was killed, and ossfs with it.
        send(control, &Report::Ended(End::Killed(signal)))?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Builder {
    fn run(&mut self) -> Result<ExitCode> {
        // The caller may have blocked signals that it reads.
        SigSet::empty()
            .thread_set_mask()
            .context("unblock signals")?;
        umask(Permissions::from_bits_truncate(0o077));
        // It is the leader of a session already if the caller made it so.
        let _ = setsid();
        let (start, descriptors) =
            receive_start(&self.control).context("receive the command to run")?;
        let (spec, time_zone) = (start.spec, start.time_zone);
        limits::set(&mut self.left_out);
        let found = match spec.mode {
            Mode::Off => unconfined::enter(&spec)?,
            Mode::Full => root::enter(&spec, &mut self.left_out)?,
        };
        let watched = spec.mode == Mode::Full && getpid().as_raw() == 1;
        if spec.mode == Mode::Full {
            if !watched {
                self.left_out.push("no PID namespace".to_owned());
            }
            self.confine(&spec)?;
        }
        self.report_built(watched)?;
        ignore_ends().context("block signals")?;
        let (command, life) = command(&spec, &found, time_zone, descriptors)?;
        if watched {
            return watch::run(command, &self.control, life);
        }
        // After the change of uid, which clears it (PR_SET_PDEATHSIG of prctl(2)). A watcher ends
        // with its channel.
        prctl::set_pdeathsig(Signal::SIGKILL).context("set the parent-death signal")?;
        match replace(command, &life) {
            Err(error) => Err(error),
        }
    }

    /// Gives up every privilege. Nothing that needs one works afterwards.
    fn confine(&mut self, spec: &Spec) -> Result<()> {
        let control = &self.control;
        let map = || -> Result<bool> {
            send(control, &Report::MapIds)?;
            let Mapped(done) = receive(control)?.context("the caller has exited")?;
            Ok(done)
        };
        self.user_namespace = identity::take(spec.uid, map, &mut self.left_out)?;
        prctl::set_no_new_privs().context("set no_new_privs")?;
        filter::apply(&mut self.left_out);
        Ok(())
    }

    fn report_built(&mut self, watched: bool) -> Result<()> {
        let report = Report::Built {
            left_out: std::mem::take(&mut self.left_out),
            user_namespace: self.user_namespace,
            watched,
        };
        send(&self.control, &report).context("report to the caller")
    }
}

/// Has ossfs, which inherits what is blocked, not hear the signals that ask processes to end: at the
/// shutdown of a node all get SIGTERM at once, and containers still write in their grace period. It is
/// ended through its FUSE descriptor. libfuse leaves the mask of its main thread as it is.
fn ignore_ends() -> nix::Result<()> {
    let mut ends = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        ends.add(signal);
    }
    ends.thread_set_mask()
}

/// How ossfs is executed, and the descriptor that stays open for as long as it runs.
fn command(
    spec: &Spec,
    found: &Found,
    time_zone: Option<String>,
    descriptors: Descriptors,
) -> Result<(Command, OwnedFd)> {
    let mut command = Command::new(&found.program);
    command
        .args(&spec.arguments)
        .env_clear()
        .envs(&spec.environment)
        .env("PATH", format!("{}:{PATH}", found.stub.display()))
        .env("HOME", "/tmp")
        .envs(time_zone.map(|zone| ("TZ", zone)))
        .current_dir("/")
        .stdin(descriptors.fuse)
        .stdout(descriptors.output.try_clone()?)
        .stderr(Stdio::from(descriptors.output));
    Ok((command, descriptors.life))
}

/// Becomes ossfs; returns only if that fails.
fn replace(mut command: Command, life: &OwnedFd) -> Result<Infallible> {
    fcntl_setfd(life, FdFlags::empty()).context("keep a descriptor for ossfs")?;
    let error = command.exec();
    Err(error).with_context(|| format!("start {}", command.get_program().display()))
}
