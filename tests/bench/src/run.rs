//! One command, run as kubelet runs a driver: stdin from /dev/null, one pipe for both outputs, over
//! when the pipe is closed and the process has ended.

use anyhow::{Result, ensure};
use std::ffi::OsStr;
use std::path::Path;
use std::time::{Duration, Instant};
use support::Kubelet;

/// A command's time and output.
pub(crate) struct Run {
    pub(crate) time: Duration,
    pub(crate) words: String,
}

/// Runs `program` with `arguments`, and `environment` besides PATH. An error if it
/// fails.
///
/// # Panics
/// If it cannot be started.
pub(crate) fn run<A: AsRef<OsStr>>(
    program: &Path,
    arguments: &[A],
    environment: &[(&str, &str)],
) -> Result<Run> {
    let environment = environment
        .iter()
        .map(|(name, value)| (name.into(), value.into()));
    let caller = Kubelet {
        driver: program.to_owned(),
        environment: environment.collect(),
    };
    let since = Instant::now();
    let (status, words) = caller.start(arguments).end();
    let time = since.elapsed();
    ensure!(status.success(), "{}: {status}: {words}", program.display());
    Ok(Run { time, words })
}
