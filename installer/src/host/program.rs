//! Running programs: no shell, an empty environment, stdin from /dev/null, a deadline. Those of the
//! host are run through a stage (`host::stage`).

use crate::host::Host;
use crate::host::stage::{CARRY, LEAVE, NOT_STARTED, STAY};
use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::ffi::OsStr;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The standard directories.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How much of a program's output is kept, in bytes.
const MAX_BYTES: usize = 64 * 1024;

/// What a program printed, on both outputs, and how it ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) text: String,
    /// The exit status; nothing if a signal ended it.
    pub(crate) status: Option<i32>,
}

impl Output {
    /// The text if the program ended well.
    pub(crate) fn success(self) -> Result<String> {
        match self.status {
            Some(0) => Ok(self.text),
            Some(status) => bail!("exit status {status}: {}", last_line(&self.text)),
            None => bail!("ended by a signal: {}", last_line(&self.text)),
        }
    }

    /// Whether the host has no such program.
    pub(crate) fn is_missing(&self) -> bool {
        self.status == Some(NOT_STARTED)
    }
}

/// The last line that is not empty, of bounded length.
fn last_line(text: &str) -> String {
    let line = text.lines().rfind(|line| !line.trim().is_empty());
    line.unwrap_or("it said nothing")
        .chars()
        .take(300)
        .collect()
}

/// Runs the file `program` as it is seen from here.
pub(crate) fn run(program: &Path, args: &[&str], limit: Duration) -> Result<Output> {
    let mut command = Command::new(program);
    command.args(args);
    finish(command, limit).with_context(|| format!("run {}", program.display()))
}

/// Runs `program` of the host, found in the standard directories if it is only a name.
pub(crate) fn run_on(
    host: &Host,
    program: &str,
    args: &[&OsStr],
    limit: Duration,
) -> Result<Output> {
    run_staged(STAY, &[], host, program, args, limit)
}

/// `run_on`, outside the installer's own cgroup: what the program starts may outlive the installer,
/// and what it needs is not the installer's memory.
pub(crate) fn run_outside(
    host: &Host,
    program: &str,
    args: &[&OsStr],
    limit: Duration,
) -> Result<Output> {
    run_staged(LEAVE, &[], host, program, args, limit)
}

/// `run_outside`, with a copy of `file` made at the path `copy` of the host first, which stays.
pub(crate) fn run_with_copy(
    host: &Host,
    (file, copy): (&Path, &Path),
    program: &str,
    args: &[&OsStr],
    limit: Duration,
) -> Result<Output> {
    run_staged(CARRY, &[file, copy], host, program, args, limit)
}

fn run_staged(
    stage: &str,
    files: &[&Path],
    host: &Host,
    program: &str,
    args: &[&OsStr],
    limit: Duration,
) -> Result<Output> {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0(stage)
        .arg(host.root())
        .args(files)
        .arg(program)
        .args(args);
    finish(command, limit).with_context(|| format!("run {program} on the host"))
}

fn finish(mut command: Command, limit: Duration) -> Result<Output> {
    let deadline = Instant::now() + limit;
    let (mut reader, writer) = std::io::pipe().context("make a pipe")?;
    command
        .env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(writer.try_clone().context("make a pipe")?)
        .stderr(writer);
    let mut child = command.spawn()?;
    // It holds the pipe's other end.
    drop(command);
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(
            &mut [PollFd::new(reader.as_fd(), PollFlags::POLLIN)],
            timeout,
        ) {
            Ok(0) if left.is_zero() => {
                // It may have ended meanwhile; what it started keeps the pipe and is left alone.
                let _ = child.kill();
                child.wait().context("wait for it")?;
                bail!("it has not ended within {} s", limit.as_secs());
            }
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => match reader.read(&mut buffer).context("read its output")? {
                0 => break,
                n => bytes.extend(&buffer[..n.min(MAX_BYTES - bytes.len().min(MAX_BYTES))]),
            },
            Err(e) => return Err(e).context("wait for its output"),
        }
    }
    let status = child.wait().context("wait for it")?;
    Ok(Output {
        text: String::from_utf8_lossy(&bytes).into_owned(),
        status: status.code(),
    })
}

#[cfg(test)]
mod tests {
    use super::{Output, run};
    use std::path::Path;
    use std::time::Duration;

    const LIMIT: Duration = Duration::from_secs(20);

    #[test]
    fn output_and_status_come_back() {
        let output = run(Path::new("/bin/echo"), &["a", "b"], LIMIT).unwrap();
        assert_eq!(output.success().unwrap(), "a b\n");
        let error = run(Path::new("/bin/ls"), &["/no/such"], LIMIT).unwrap();
        let error = error.success().unwrap_err().to_string();
        assert!(error.starts_with("exit status 2: "), "{error}");
        assert!(run(Path::new("/no/such"), &[], LIMIT).is_err());
    }

    #[test]
    fn who_does_not_end_is_ended() {
        let error = run(
            Path::new("/bin/sleep"),
            &["1000"],
            Duration::from_millis(50),
        );
        let error = format!("{:#}", error.unwrap_err());
        assert_eq!(error, "run /bin/sleep: it has not ended within 0 s");
    }

    #[test]
    fn a_failure_says_the_last_line() {
        let output = Output {
            text: "a\nb\n\n".to_owned(),
            status: Some(3),
        };
        assert_eq!(
            output.success().unwrap_err().to_string(),
            "exit status 3: b"
        );
    }
}
