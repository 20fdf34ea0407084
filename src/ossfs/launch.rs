//! Starting ossfs: without a shell, in a session and an environment of its own, and where systemd
//! runs as a unit outside kubelet's cgroup, so that a restart of kubelet does not end it.

use crate::config::{FILE_VARIABLE, Launcher};
use crate::mounts::{directory, unmount};
use crate::ossfs::systemd;
use crate::serve;
use crate::state::start::{Start, Supervisor};
use crate::state::volume::Volume;
use crate::sys::command::PATH;
use crate::sys::deadline::Deadline;
use crate::sys::lock::Lock;
use crate::sys::process::{self, ProcessId};
use crate::sys::{helper, root_only};
use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{dup, execve, setsid};
use std::ffi::{CString, OsString};
use std::fs::OpenOptions;
use std::io::{PipeReader, Write as _, pipe};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `argv[0]` of the process that becomes ossfs: `oss-daemon VOLUME_DIRECTORY`. It is in systemd's
/// template, too.
pub(crate) const DAEMON: &str = "oss-daemon";
/// How many starts under systemd may fail in a row before the next is delayed.
const FREE_STARTS: u32 = 2;

/// The absolute path of the program `name`, looked up in the standard directories.
pub(crate) fn find_program(name: &str) -> Result<PathBuf> {
    which::which_in(name, Some(PATH), "/").map_err(|_| {
        anyhow::anyhow!(
            "{name:?} is not an executable file of this node (looked in {PATH}): install ossfs there, \
             or name it as \"ossfs\" in the node configuration"
        )
    })
}

/// The supervisor of ossfs on this node; an error if the node does not have what `launcher` needs.
pub(crate) fn choose(launcher: Launcher) -> Result<Supervisor> {
    let with_systemd = |name: &str, tool: &str| match systemd::tool(tool) {
        Some(path) if systemd::is_running() => Ok(path),
        _ => bail!(
            "the launcher {name:?} of the node configuration needs systemd and {tool}, which are \
             not available on this node"
        ),
    };
    match launcher {
        Launcher::Direct => Ok(Supervisor::Direct),
        Launcher::Auto if systemd::is_running() && systemd::tool("systemctl").is_some() => {
            Ok(Supervisor::Unit)
        }
        Launcher::Auto => Ok(Supervisor::Direct),
        Launcher::Unit => with_systemd("unit", "systemctl").map(|_| Supervisor::Unit),
        Launcher::Scope => with_systemd("scope", "systemd-run").map(Supervisor::Scope),
    }
}

/// Starts ossfs for `volume`. The returned child is, or becomes, ossfs itself; its output can be read
/// for as long as this call runs. After that it is dropped: with a file, whoever makes ossfs print
/// could fill the node's memory, or its disk.
///
/// It holds `lock` until then: should this call be killed in between, the next one finds either no
/// daemon or the daemon's record, never a daemon that has not recorded itself yet.
pub(crate) fn spawn(volume: &Volume, lock: &Lock) -> Result<(Child, PipeReader)> {
    // Other than all else that is open, a duplicate is inherited; `become_daemon` closes it.
    let _held = dup(lock.as_fd()).context("pass on the lock")?;
    let (reader, writer) = pipe().context("make a pipe")?;
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("make a pipe")?;
    // ossfs gets an end that it could read from as well. So there is always a reader: what does not
    // fit is lost, and ossfs neither blocks nor is killed by SIGPIPE as it flushes its output.
    let writer = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(format!("/proc/self/fd/{}", writer.as_raw_fd()))
        .context("make a pipe")?;
    let child = helper::command(DAEMON)
        .arg(volume.directory())
        .stdout(writer.try_clone().context("make a pipe")?)
        .stderr(writer)
        .spawn()
        .context("start a child process")?;
    Ok((child, reader))
}

/// Starts the process of `volume`, which has the relay, outside of systemd's units. It inherits `lock`
/// and holds it until it has recorded itself: should this call be killed in between, the next one finds
/// either no process or its record, never a process on its way.
pub(crate) fn spawn_server(volume: &Volume, start: &Start, lock: &Lock) -> Result<Child> {
    // Other than all else that is open, a duplicate is inherited; the process closes it.
    let _held = dup(lock.as_fd()).context("pass on the lock")?;
    let mut command = match &start.supervisor {
        Supervisor::Scope(systemd_run) => in_scope(systemd_run, volume)?,
        _ => helper::command("oss"),
    };
    if let Some(file) = std::env::var_os(FILE_VARIABLE) {
        command.env(FILE_VARIABLE, file);
    }
    command
        .args(["serve", serve::PARENT])
        .arg(volume.directory())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("start the process of the volume")
}

fn in_scope(systemd_run: &Path, volume: &Volume) -> Result<Command> {
    let mut command = Command::new(systemd_run);
    // A scope of the same name may still be ending.
    let unit = format!("alicloud-oss-{}-{}.scope", volume.id(), std::process::id());
    command
        .env_clear()
        .env("PATH", PATH)
        .args(["--quiet", "--scope"])
        .arg(format!("--slice={}", systemd::SLICE))
        .arg(format!("--unit={unit}"))
        .arg("--")
        .arg(systemd::own_program()?);
    Ok(command)
}

/// Makes this process one that outlives the call which started it.
pub(crate) fn detach() -> Result<()> {
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
    Ok(())
}

/// Whether the volume of a process that was started as `oss-daemon` with `args` has the relay.
pub(crate) fn is_relayed(args: &[OsString]) -> bool {
    let volume = args.first().and_then(|path| Volume::at(Path::new(path)));
    volume.is_some_and(|volume| volume.has_plan())
}

/// The part of the process `oss-daemon`: it comes back only with an error, which it prints, or where
/// there is nothing to start any more.
pub(crate) fn run(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let directory = args.next().unwrap_or_default();
    match become_daemon(Path::new(&directory)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            // Where the output of ossfs itself goes; without a reader only the status is left.
            let _ = writeln!(std::io::stdout(), "error {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// Makes this process the daemon of the volume at `directory`: records itself, then becomes
/// ossfs, through systemd-run if the volume's supervisor is a scope. Only comes back with an error.
/// Nothing to do, and a success, where the volume has ended meanwhile.
fn become_daemon(directory: &Path) -> Result<()> {
    let volume = Volume::at(directory).context("no volume directory is given")?;
    let Some(start) = volume.read_start()? else {
        return Ok(());
    };
    detach()?;
    if start.supervisor == Supervisor::Unit {
        restart(&volume)?;
    }
    volume.record_daemon(&ProcessId::own()?)?;
    process::close_inherited()?;
    let arguments = exec_arguments(&start, volume.id())?;
    let environment = [c_string(&format!("PATH={PATH}"))?];
    // execve(2) itself: execvp(3) would hand a file that is no program to a shell.
    execve(&arguments[0], &arguments, &environment)
        .map(|never| match never {})
        .with_context(|| format!("run {}", arguments[0].to_string_lossy()))
}

/// Prepares a start by systemd, which may follow the death of a daemon: its dead mount is unmounted
/// from the staging directory. The start counts as failed until the volume is served.
fn restart(volume: &Volume) -> Result<()> {
    let (failed, _) = volume.failed_starts()?;
    volume.record_failed_starts(failed + 1, unix_time())?;
    if directory::is_mount_point(&volume.staging())? {
        unmount::all_layers(&volume.staging(), Deadline::after(Duration::ZERO))?;
    }
    root_only::make_directory(&volume.staging())
}

/// Waits before a unit is started again: longer after each start that fails in a row, but no longer
/// once a call requests a start, or the volume is removed.
pub(crate) fn hold_back(volume: &Volume) -> Result<()> {
    let changes = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
        .context("watch the volume's directory")?;
    let watched = changes.add_watch(volume.directory(), AddWatchFlags::IN_DELETE);
    if watched == Err(Errno::ENOENT) {
        return Ok(());
    }
    watched.context("watch the volume's directory")?;
    let (failed, _) = volume.failed_starts()?;
    let deadline = Deadline::after(backoff(failed.saturating_sub(FREE_STARTS)));
    while !deadline.has_passed() && volume.failed_starts()?.0 > 0 {
        // Interrupted or not, the loop checks again.
        let _ = poll(
            &mut [PollFd::new(changes.as_fd(), PollFlags::POLLIN)],
            deadline.poll_timeout(),
        );
        let _ = changes.read_events();
    }
    Ok(())
}

/// How long to wait after that many starts failed in a row.
pub(crate) fn backoff(failed: u32) -> Duration {
    match failed {
        0 => Duration::ZERO,
        n => Duration::from_secs(1 << n.min(8)),
    }
}

/// The time as seconds of Unix time.
pub(crate) fn unix_time() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}

/// The whole command line that the daemon is started with, the program's path first.
fn exec_arguments(start: &Start, id: &str) -> Result<Vec<CString>> {
    let program = start.program.to_string_lossy();
    let mut args = Vec::new();
    if let Supervisor::Scope(systemd_run) = &start.supervisor {
        args.push(c_string(&systemd_run.to_string_lossy())?);
        args.push(c_string("--scope")?);
        args.push(c_string(&format!("--slice={}", systemd::SLICE))?);
        // A scope of the same name may still be ending.
        let pid = std::process::id();
        args.push(c_string(&format!("--unit=alicloud-oss-{id}-{pid}.scope"))?);
        args.push(c_string("--")?);
    }
    args.push(c_string(&program)?);
    for argument in &start.arguments {
        args.push(c_string(argument)?);
    }
    Ok(args)
}

fn c_string(text: &str) -> Result<CString> {
    CString::new(text).with_context(|| format!("{text:?} has a NUL byte"))
}
