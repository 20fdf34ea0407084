//! What the machine that runs the tests has to offer.

use std::env;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// The search path of every program that runs on the host or in a node.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Programs that must be installed, each with the package that has it.
const PROGRAMS: [(&str, &str); 6] = [
    ("debootstrap", "debootstrap"),
    ("systemd-nspawn", "systemd-container"),
    ("flock", "util-linux"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("unshare", "util-linux"),
];

/// A program in the namespaces of the process `pid1`, as root; it ends with this thread.
pub fn command_in(pid1: u32, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--target={pid1}"))
        .args([
            "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--",
        ])
        .args(["/usr/bin/setpriv", "--pdeathsig", "KILL", "--"])
        .arg(program)
        .env_clear()
        .env("PATH", PATH);
    command
}

/// Finds a program of the host.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    find(name).with_context(|| {
        let package = PROGRAMS
            .iter()
            .find(|(program, _)| *program == name)
            .map_or(name, |(_, package)| package);
        format!("{name} is not installed: apt-get install {package}")
    })
}

fn find(name: &str) -> Option<PathBuf> {
    env::split_paths(PATH)
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}

/// Lists what this machine lacks to run nodes, one sentence each; empty if nothing is missing.
pub fn missing() -> Vec<String> {
    let mut reasons = Vec::new();
    if !rustix::process::geteuid().is_root() {
        reasons.push("not root".to_owned());
    }
    if !Path::new("/dev/fuse").exists() {
        reasons.push("no /dev/fuse".to_owned());
    }
    let mut packages: Vec<_> = PROGRAMS
        .iter()
        .filter(|(program, _)| find(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    packages.dedup();
    if !packages.is_empty() {
        reasons.push(format!(
            "packages not installed: apt-get install {}",
            packages.join(" ")
        ));
    }
    reasons
}

/// Tells whether a test must return because this machine cannot run nodes, and says why on standard error.
///
/// # Panics
///
/// If something is missing and the environment has `CI=true`: there, a test that does not run is a failure.
pub fn skip() -> bool {
    let reasons = missing();
    if !reasons.is_empty() {
        skip_because(&reasons.join("; "));
    }
    !reasons.is_empty()
}

/// Says on standard error that a test does not run, for a reason that only the test can know.
///
/// # Panics
///
/// If the environment has `CI=true`.
pub fn skip_because(reason: &str) {
    assert!(
        env::var("CI").as_deref() != Ok("true"),
        "cannot run: {reason}"
    );
    // Past the capture of the test harness, which hides what a passing test prints.
    writeln!(io::stderr(), "skipped: {reason}").ok();
}

/// The end of a log, for an error message.
pub(crate) fn last_lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
