//! Starting ossfs: without a shell, in a session and an environment of its own, and where systemd
//! runs in a scope outside kubelet's cgroup, so that a restart of kubelet does not take it along.

use crate::child::{self, PATH};
use crate::config::{Config, Launcher};
use crate::lock::Lock;
use crate::process::{self, ProcessId};
use crate::volume::Volume;
use anyhow::{Context as _, Result, bail};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{dup, execve, setsid};
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::ffi::CString;
use std::io::{PipeReader, pipe};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Child;

/// The slice of every daemon under systemd.
const SLICE: &str = "alicloud-oss.slice";

/// How ossfs is started for one volume: the content of its `volume.json`.
#[derive(Serialize, Deserialize, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Start {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) read_only: bool,
    /// systemd-run, if ossfs is to run in a scope.
    pub(crate) systemd_run: Option<PathBuf>,
}

/// The absolute path of the program `name`, looked up in the standard directories.
pub(crate) fn find_program(name: &str) -> Result<PathBuf> {
    which::which_in(name, Some(PATH), "/").map_err(|_| {
        anyhow::anyhow!(
            "{name:?} is not an executable file of this node (looked in {PATH}): install ossfs there, \
             or name it as \"ossfs\" in the node configuration"
        )
    })
}

/// systemd-run, if `config` and this node want ossfs to run in a scope.
pub(crate) fn find_systemd_run(config: &Config) -> Result<Option<PathBuf>> {
    let found = || which::which_in("systemd-run", Some(PATH), "/").ok();
    match config.launcher {
        Launcher::Direct => Ok(None),
        Launcher::Auto if systemd_is_running() => Ok(found()),
        Launcher::Auto => Ok(None),
        Launcher::Scope if !systemd_is_running() => {
            bail!(
                "the launcher \"scope\" of the node configuration needs systemd, which does not run here"
            )
        }
        Launcher::Scope => match found() {
            Some(path) => Ok(Some(path)),
            None => bail!(
                "the launcher \"scope\" of the node configuration needs systemd-run, which is missing"
            ),
        },
    }
}

/// Whether systemd is PID 1 and sees the mounts that we see: sd_booted(3), and the same mount
/// namespace. In a kubelet that runs in a container it may be neither.
fn systemd_is_running() -> bool {
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    Path::new("/run/systemd/system").is_dir()
        && namespace("1").is_some()
        && namespace("1") == namespace("self")
}

/// Starts ossfs for `volume`. The returned child is, or becomes, ossfs itself; its words can be read
/// from it for as long as this call lives. Behind that they go nowhere: a file would let whoever
/// makes ossfs talk fill the node's memory, or its disk.
///
/// It holds `lock` until then: should this call be killed in between, the next one finds either no
/// daemon or the daemon's note, never a daemon on its way.
pub(crate) fn spawn(volume: &Volume, lock: &Lock) -> Result<(Child, PipeReader)> {
    // Other than all else that is open, a duplicate is inherited; `become_daemon` closes it.
    let _held = dup(lock.as_fd()).context("pass on the lock")?;
    let (reader, writer) = pipe().context("make a pipe")?;
    // What does not fit into the pipe is lost, rather than that ossfs waits for a reader.
    for end in [reader.as_fd(), writer.as_fd()] {
        fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("make a pipe")?;
    }
    let child = child::command(child::DAEMON)
        .arg(volume.directory())
        .stdout(writer.try_clone().context("make a pipe")?)
        .stderr(writer)
        .spawn()
        .context("start a child process")?;
    Ok((child, reader))
}

/// Makes this process the daemon of the volume at `directory`: notes itself as such, then becomes
/// ossfs, by way of systemd-run where the volume says so. Only comes back with an error.
pub(crate) fn become_daemon(directory: &Path) -> Result<Infallible> {
    let volume = Volume::at(directory).context("no volume directory is given")?;
    let start = volume.read_start()?;
    // A session of its own: no signal to kubelet's group reaches it. It may lead one already.
    let _ = setsid();
    umask(Mode::from_bits_truncate(0o022));
    // A core dump of ossfs would hold its keys. The limit holds for files, the filter for what a
    // core_pattern pipes to a program (core(5)); kernels without core dumps have no such file.
    setrlimit(Resource::RLIMIT_CORE, 0, 0).context("switch core dumps off")?;
    let _ = std::fs::write("/proc/self/coredump_filter", "0");
    // kubelet's protection from the out-of-memory killer is not for what a Pod can make grow.
    // Without /proc/self/oom_score_adj, or the right to lower it, all stays as it is.
    let _ = std::fs::write("/proc/self/oom_score_adj", "0");
    volume.write_daemon(&ProcessId::own()?)?;
    process::close_inherited()?;
    // SIGPIPE stays ignored, as it is in this program: nobody listens to ossfs for ever.
    let arguments = exec_arguments(&start, volume.id())?;
    let environment = [c_string(&format!("PATH={PATH}"))?];
    // execve(2) itself: execvp(3) would hand a file that is no program to a shell.
    execve(&arguments[0], &arguments, &environment)
        .with_context(|| format!("run {}", arguments[0].to_string_lossy()))
}

/// The whole command line that the daemon is started with, the program's path first.
fn exec_arguments(start: &Start, id: &str) -> Result<Vec<CString>> {
    let program = start.program.to_string_lossy();
    let mut words = Vec::new();
    if let Some(systemd_run) = &start.systemd_run {
        words.push(c_string(&systemd_run.to_string_lossy())?);
        words.push(c_string("--scope")?);
        words.push(c_string(&format!("--slice={SLICE}"))?);
        // A scope of the same name may still be ending.
        let pid = std::process::id();
        words.push(c_string(&format!("--unit=alicloud-oss-{id}-{pid}.scope"))?);
        words.push(c_string("--")?);
    }
    words.push(c_string(&program)?);
    for argument in &start.arguments {
        words.push(c_string(argument)?);
    }
    Ok(words)
}

fn c_string(text: &str) -> Result<CString> {
    CString::new(text).with_context(|| format!("{text:?} has a NUL byte"))
}
