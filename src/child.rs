//! Work that is done in a child process: what may hang in the kernel for as long as a FUSE daemon
//! hangs (a killed task still waits for a request that the daemon has read), and the step between
//! the driver and ossfs. The child is this program under another name (`argv[0]`), so it needs no
//! file of its own and no word of kubelet's is taken up by it.

use crate::deadline::Deadline;
use crate::mounts::{replace, unmount};
use crate::ossfs::{launch, probe};
use anyhow::{Context as _, Result, anyhow, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use std::ffi::{OsStr, OsString};
use std::io::{PipeReader, Read as _, Write as _, pipe};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// `argv[0]` of the process that becomes ossfs: `oss-daemon VOLUME_DIRECTORY`.
pub(crate) const DAEMON: &str = "oss-daemon";
/// `argv[0]` of the process that asks a mounted file system: `oss-probe DIRECTORY`.
pub(crate) const PROBE: &str = "oss-probe";
/// `argv[0]` of the process that replaces dead mounts: `oss-replace STAGING PID LIVE DEAD…`.
pub(crate) const REPLACE: &str = "oss-replace";
/// `argv[0]` of the process that unmounts: `oss-umount PATH MILLISECONDS`.
const UNMOUNT: &str = "oss-umount";
/// The standard directories, where ossfs, systemd-run and what ossfs itself calls are found.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Time for a child to answer behind the deadline that it keeps itself.
const GRACE: Duration = Duration::from_secs(1);

/// Whether this process is such a child, by the name it was started under; then does its work and
/// returns its answer for the parent.
pub(crate) fn run(args: &mut impl Iterator<Item = OsString>, name: &OsStr) -> Option<String> {
    let name = name.to_str()?;
    if matches!(name, PROBE | REPLACE | UNMOUNT) && !lives_with_parent() {
        return Some(String::new());
    }
    if name == REPLACE {
        let words: Vec<String> = args
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        return Some(replace::run(&words).unwrap_or_else(|e| format!("{e:#}")));
    }
    let mut argument = || args.next().unwrap_or_default();
    let result = match name {
        DAEMON => launch::become_daemon(Path::new(&argument())).map(|()| String::new()),
        PROBE => probe::ask(Path::new(&argument())),
        UNMOUNT => {
            let path = argument();
            let busy = argument()
                .to_str()
                .and_then(|ms| ms.parse().ok())
                .unwrap_or(0);
            unmount::all_layers(
                Path::new(&path),
                Deadline::after(Duration::from_millis(busy)),
            )
            .map(|detached| if detached { "detached" } else { "done" }.to_owned())
        }
        _ => return None,
    };
    Some(result.unwrap_or_else(|e| format!("error {e:#}")))
}

/// Has this process end with its parent, which holds the locks for what is done here: behind a parent
/// that was killed the next call would find it at work at the same places. False if the parent has
/// ended already.
fn lives_with_parent() -> bool {
    let _ = prctl::set_pdeathsig(Signal::SIGKILL);
    // The parent alone reads what this process prints (poll(2): POLLERR where nobody does).
    let stdout = std::io::stdout();
    let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    let _ = poll(&mut fds, PollTimeout::ZERO);
    fds[0].any() != Some(true)
}

/// Prints a child's answer for its parent.
pub(crate) fn print(answer: &str) {
    // The parent may have given up: nobody is left to tell.
    let _ = std::io::stdout().write_all(answer.as_bytes());
}

/// `unmount::all_layers` in a child process, for layers whose end may have to wait for a daemon.
/// An error if the child has not come back soon after `busy_until`; it is left to end by itself.
pub(crate) fn unmount(path: &Path, busy_until: Deadline) -> Result<bool> {
    let ms = busy_until.remaining().as_millis().to_string();
    let deadline = Deadline::after(busy_until.remaining() + GRACE);
    let answer = ask(command(UNMOUNT).arg(path).arg(ms), deadline)?;
    match answer.as_ref().map(|(words, _)| words.as_str()) {
        Some("done") => Ok(false),
        Some("detached") => Ok(true),
        Some(other) => Err(anyhow!("{}", other.strip_prefix("error ").unwrap_or(other))),
        None => bail!(
            "unmounting {} has not ended within its time",
            path.display()
        ),
    }
}

/// This program, to be run as `name`, with nothing of the caller's environment.
pub(crate) fn command(name: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0(name)
        .env_clear()
        .env("PATH", PATH)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// What `command` prints to both outputs until it ends, and whether its status is 0; nothing if it
/// has not ended by `deadline`: then it is killed, as far as a task that waits for a daemon can be,
/// and not waited for.
pub(crate) fn ask(command: &mut Command, deadline: Deadline) -> Result<Option<(String, bool)>> {
    let (mut reader, writer) = pipe().context("make a pipe")?;
    let second = writer.try_clone().context("make a pipe")?;
    let mut child = command
        .stdout(writer)
        .stderr(second)
        .spawn()
        .context("start a child process")?;
    // The command holds the pipe's other ends, which must close with the child.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let Some(words) = read_until(&mut reader, deadline)? else {
        // It may have ended meanwhile.
        let _ = child.kill();
        return Ok(None);
    };
    let status = child.wait().context("wait for a child process")?;
    Ok(Some((words, status.success())))
}

fn read_until(pipe: &mut PipeReader, deadline: Deadline) -> Result<Option<String>> {
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, deadline.poll_timeout()) {
            Ok(0) if deadline.has_passed() => return Ok(None),
            Ok(0) | Err(nix::errno::Errno::EINTR) => {}
            Ok(_) => match pipe
                .read(&mut buffer)
                .context("read from a child process")?
            {
                0 => return Ok(Some(String::from_utf8_lossy(&answer).into_owned())),
                n => answer.extend_from_slice(&buffer[..n]),
            },
            Err(e) => return Err(e).context("wait for a child process"),
        }
    }
}
