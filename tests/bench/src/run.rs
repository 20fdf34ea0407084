//! One command, run as kubelet runs a driver: stdin from /dev/null, one pipe for both outputs, over
//! when the pipe is closed and the process has ended.

use anyhow::{Context as _, Result, ensure};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What every command has as PATH.
pub(crate) const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// A command's time and words.
pub(crate) struct Run {
    pub(crate) time: Duration,
    pub(crate) words: String,
}

/// Runs `program` with `arguments`, and `environment` besides PATH. An error if it fails.
pub(crate) fn run<A: AsRef<OsStr>>(
    program: &Path,
    arguments: &[A],
    environment: &[(&str, &str)],
) -> Result<Run> {
    let (reader, writer) = std::io::pipe().context("make a pipe")?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(writer.try_clone().context("make a pipe")?)
        .stderr(writer);
    let since = Instant::now();
    let mut child = command
        .spawn()
        .with_context(|| format!("start {}", program.display()))?;
    // It keeps the pipe's other end open.
    drop(command);
    let mut words = String::new();
    File::from(OwnedFd::from(reader))
        .read_to_string(&mut words)
        .with_context(|| format!("read from {}", program.display()))?;
    let status = child.wait().context("wait for a command")?;
    let time = since.elapsed();
    ensure!(status.success(), "{}: {status}: {words}", program.display());
    Ok(Run { time, words })
}
