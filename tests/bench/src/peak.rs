//! The peak memory of a command. A process that forks leaves its own peak to its child
//! (getrusage(2) counts it as the child's), so the command is started by a small process: this
//! program again, before it has done anything else.

use anyhow::{Context as _, Result, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use std::ffi::OsString;
use std::process::{Command, ExitCode, Stdio};

/// The first argument of the program when it is the small process; the command follows.
pub(crate) const WORD: &str = "peak-memory-of";

/// Runs the command in `arguments` and prints the peak memory of its largest process, in KiB.
pub(crate) fn run(arguments: &[OsString]) -> Result<ExitCode> {
    let [program, rest @ ..] = arguments else {
        anyhow::bail!("{WORD} needs a command");
    };
    let output = Command::new(program)
        .args(rest)
        .stdin(Stdio::null())
        .output()
        .context("run the command")?;
    ensure!(output.status.success(), "the command failed");
    let words = String::from_utf8_lossy(&output.stdout);
    ensure!(!words.contains("Failure"), "{words}");
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("getrusage")?;
    println!("{}", usage.max_rss());
    Ok(ExitCode::SUCCESS)
}

/// The peak memory of `command`, in MiB.
pub(crate) fn of(command: &[&str], environment: &[(&str, &str)]) -> Result<f64> {
    let mut arguments = vec![WORD];
    arguments.extend(command);
    let run = crate::run::run("/proc/self/exe".as_ref(), &arguments, environment)?;
    let kib: f64 = run.words.trim().parse().context("read the peak memory")?;
    Ok(kib / 1024.0)
}
