//! Running a program to its end: no shell, a deadline, an output of bounded length.

use crate::sys::deadline::Deadline;
use crate::sys::process::Process;
use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, poll};
use std::io::{ErrorKind, PipeReader, Read as _, pipe};
use std::os::fd::AsFd as _;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The standard directories, where ossfs, systemctl and what they call are found.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The most that is kept of a program's output, in bytes; what follows is read and dropped.
const MAX_OUTPUT: usize = 256 * 1024;
/// How long a program that was killed is waited for. One that waits for a FUSE daemon in the kernel
/// cannot end before that answers; a thread waits for it then.
const REAP_TIME: Duration = Duration::from_millis(100);

/// Held by whoever starts a process, while it has descriptors open that any process inherits which is started
/// meanwhile: other threads may be at it, too.
pub(crate) fn spawning() -> MutexGuard<'static, ()> {
    static SPAWNING: Mutex<()> = Mutex::new(());
    // There is nothing in it that could be half done.
    SPAWNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a program that has ended printed to both outputs, and its exit status.
pub struct Output {
    /// stdout and stderr as they came, at most 256 KiB; what is not UTF-8 is replaced.
    pub text: String,
    pub status: ExitStatus,
}

/// Runs `command` until it ends, with both outputs read by this process. `None` if it has not ended
/// by `deadline`: then it is killed. What it has started and left running is not waited for. An
/// error if it cannot be started or waited for.
pub fn run_with_deadline(command: &mut Command, deadline: Deadline) -> Result<Option<Output>> {
    let (mut reader, writer) = pipe().context("make a pipe")?;
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("make a pipe")?;
    command
        .stdout(writer.try_clone().context("make a pipe")?)
        .stderr(writer);
    let mut child = {
        let _alone = spawning();
        command.spawn().context("start a child process")?
    };
    // The command holds the pipe's other ends, which must close with the child.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let process = Process::of_child(&child)?;
    let mut output = Vec::new();
    let ended =
        read_until_end(&mut reader, &mut output, &process, deadline)? && process.wait(deadline)?;
    if !ended {
        process.kill();
        let mut reap = move || {
            // Only so that it does not stay a zombie: how it ended is known.
            let _ = child.wait();
        };
        match process.wait(Deadline::after(REAP_TIME))? {
            true => reap(),
            false => drop(std::thread::spawn(reap)),
        }
        return Ok(None);
    }
    Ok(Some(Output {
        status: child.wait().context("wait for a child process")?,
        text: String::from_utf8_lossy(&output).into_owned(),
    }))
}

/// Reads the output of `process` until it closes it or ends. False if it does neither by `deadline`.
fn read_until_end(
    pipe: &mut PipeReader,
    output: &mut Vec<u8>,
    process: &Process,
    deadline: Deadline,
) -> Result<bool> {
    loop {
        let mut fds = vec![PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
        fds.extend(
            process
                .pidfd()
                .map(|pidfd| PollFd::new(pidfd, PollFlags::POLLIN)),
        );
        match poll(&mut fds, deadline.poll_timeout()) {
            Ok(0) if deadline.has_passed() => return Ok(false),
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => {}
            Err(e) => return Err(e).context("wait for a child process"),
        }
        let has_ended = fds.get(1).is_some_and(|pidfd| pidfd.any() == Some(true));
        // After the end of the process all that it printed is in the pipe.
        if drain(pipe, output)? || has_ended {
            return Ok(true);
        }
    }
}

/// Takes what is in the pipe now. True if nothing can write to it any more.
fn drain(pipe: &mut PipeReader, output: &mut Vec<u8>) -> Result<bool> {
    let mut buffer = [0; 4096];
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) => return Ok(true),
            Ok(n) => {
                let room = MAX_OUTPUT - output.len();
                output.extend_from_slice(&buffer[..n.min(room)]);
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e).context("read from a child process"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_OUTPUT, run_with_deadline};
    use crate::sys::deadline::Deadline;
    use std::process::Command;
    use std::time::Duration;

    fn later() -> Deadline {
        Deadline::after(Duration::from_secs(60))
    }

    #[test]
    fn output_and_status_come_back() {
        let mut command = Command::new("/bin/echo");
        let output = run_with_deadline(command.args(["a", "b"]), later());
        let output = output.unwrap().unwrap();
        assert_eq!(
            (output.text.as_str(), output.status.code()),
            ("a b\n", Some(0))
        );
        let mut command = Command::new("/bin/ls");
        let output = run_with_deadline(command.arg("/no/such"), later());
        let output = output.unwrap().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(output.text.contains("/no/such"));
        assert!(run_with_deadline(&mut Command::new("/no/such"), later()).is_err());
    }

    #[test]
    fn a_program_that_does_not_end_is_killed_at_the_deadline() {
        let mut command = Command::new("/bin/sleep");
        let deadline = Deadline::after(Duration::from_millis(50));
        let output = run_with_deadline(command.arg("86399.5"), deadline);
        assert!(output.unwrap().is_none());
        // It does not stay as a zombie: this thread has no child any more (proc_tid_children(5)).
        let children = std::fs::read_to_string("/proc/thread-self/children");
        assert_eq!(children.unwrap_or_default(), "");
    }

    #[test]
    fn an_endless_output_is_cut() {
        let mut command = Command::new("/usr/bin/head");
        let output = run_with_deadline(command.args(["-c", "3000000", "/dev/zero"]), later());
        assert_eq!(output.unwrap().unwrap().text.len(), MAX_OUTPUT);
    }

    #[test]
    fn what_a_program_leaves_running_is_not_waited_for() {
        // The shell's child keeps the output open.
        let mut command = Command::new("/bin/sh");
        let script = "sleep 30 & echo $!";
        let output = run_with_deadline(command.args(["-c", script]), later());
        let output = output.unwrap().unwrap();
        let pid: i32 = output.text.trim().parse().unwrap();
        let running = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid),
            nix::sys::signal::Signal::SIGKILL,
        );
        assert_eq!(running, Ok(()));
    }
}
