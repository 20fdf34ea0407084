//! Programs that are built with the tests, and programs run to their end.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use crate::node::Node;
use crate::test_host::TestHost;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Makes the program `to` from the bytes of `from`. Another process writes it: one of this process's
/// threads may be about to start a program, which has the file open for a moment, too, and then
/// nobody can run it.
#[track_caller]
pub fn copy_program(from: &Path, to: &Path) {
    let mut command = Command::new("install");
    let status = command.args(["--mode", "0755"]).args([from, to]).status();
    assert!(status.unwrap().success());
}

/// The installer, with an empty environment.
pub fn installer(subcommand: &str) -> Command {
    let mut command = Command::new(built("../oss-installer"));
    command.env_clear().arg(subcommand).stdin(Stdio::null());
    command
}

/// The installer for `driver` beside the booted `node`, as in a Pod with hostPID; `image` has its view
/// of the node's /proc.
pub fn beside(node: &Node, image: &TestHost, subcommand: &str, driver: &Path) -> Command {
    image.show_process("1", node.pid1());
    // systemd talks to who is in its pid namespace.
    let mut command = Command::new("nsenter");
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .stdin(Stdio::null())
        .args(["--pid", "--no-fork", "--target"])
        .arg(node.pid1().to_string())
        .arg("--")
        .arg(installer(subcommand).get_program())
        .arg(subcommand)
        .arg("--driver")
        .arg(driver)
        .arg("--host-root")
        .arg(format!("/proc/{}/root", node.pid1()))
        .arg("--proc")
        .arg(image.path("proc"));
    command
}

/// A program among the installer's examples.
pub fn example(name: &str) -> PathBuf {
    built(&format!("../examples/{name}"))
}

/// The program at `path` from the directory of the running test's own file.
fn built(path: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let path = own.parent().unwrap().join(path);
    assert!(
        path.exists(),
        "{} is missing: a plain cargo test builds it, and so does cargo build --examples",
        path.display()
    );
    path
}

/// Runs `command` to its end, and returns what it logged.
#[track_caller]
pub fn finish(command: &mut Command) -> (bool, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("start the installer");
    let text = String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap();
    (status.success(), text)
}
