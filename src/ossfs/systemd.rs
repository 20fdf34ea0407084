//! The process of a volume as an instance of a template unit of systemd, `alicloud-oss@<volume id>.service`: outside
//! kubelet's cgroup, restarted when it dies, limited by an administrator with an ordinary drop-in,
//! its output in the journal. Its unit files: `unit_files`.

use crate::sys::command::{PATH, run_with_deadline};
use crate::sys::deadline::Deadline;
use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The slice that contains every daemon.
pub(crate) const SLICE: &str = "alicloud-oss.slice";
/// How long systemctl and busctl may take.
const TOOL_TIME: Duration = Duration::from_secs(10);

/// Whether systemd is PID 1 and sees the mounts that we see: sd_booted(3), and the same mount
/// namespace. In a kubelet that runs in a container it may be neither.
pub(crate) fn is_running() -> bool {
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    Path::new("/run/systemd/system").is_dir()
        && namespace("1").is_some()
        && namespace("1") == namespace("self")
}

/// One of systemd's own programs, if it is installed.
pub(crate) fn tool(name: &str) -> Option<PathBuf> {
    which::which_in(name, Some(PATH), "/").ok()
}

/// How often to check whether a process has been moved.
const MOVE_RETRY: Duration = Duration::from_millis(10);

fn unit(id: &str) -> String {
    format!("alicloud-oss@{id}.service")
}

/// The path of this program, for a unit to run.
pub(crate) fn own_program() -> Result<String> {
    let program = std::env::current_exe().context("find the driver's own path")?;
    let program = program.to_string_lossy();
    // The driver at this path was replaced while this call runs.
    let program = program.strip_suffix(" (deleted)").unwrap_or(&program);
    if program.contains(char::is_whitespace) {
        bail!("the driver's path {program:?} has blanks, which a unit cannot run");
    }
    Ok(program.to_owned())
}

/// Starts the instance of the volume `id`, without waiting for it.
pub(crate) fn start(id: &str) -> Result<()> {
    systemctl(&["start", "--no-block", &unit(id)]).map(drop)
}

/// Stops the instance of the volume `id`, whose process has ended, and which is not to be restarted.
pub(crate) fn stop(id: &str) -> Result<()> {
    systemctl(&["stop", &unit(id)])?;
    // Else an instance that was stopped during its start stays in systemd's list as failed. For one
    // that has not failed this is an error.
    if let Err(e) = systemctl(&["reset-failed", &unit(id)]) {
        log::debug!("{e:#}");
    }
    Ok(())
}

/// Has systemd read its unit files again.
pub(crate) fn reload() -> Result<()> {
    systemctl(&["daemon-reload"]).map(drop)
}

/// systemd's version; 0 if it cannot be told.
pub(crate) fn version() -> Result<u32> {
    Ok(parse_version(&systemctl(&["--version"])?))
}

/// The version in what `systemctl --version` prints: "systemd 252 (252.39-1)".
fn parse_version(text: &str) -> u32 {
    let number = text.split_whitespace().nth(1).unwrap_or_default();
    let digits = number.bytes().take_while(u8::is_ascii_digit).count();
    number[..digits].parse().unwrap_or(0)
}

/// What systemctl prints.
fn systemctl(arguments: &[&str]) -> Result<String> {
    let program = tool("systemctl").context("systemctl is missing")?;
    let output = run_with_deadline(
        command(&program).args(arguments).arg("--no-ask-password"),
        Deadline::after(TOOL_TIME),
    )?;
    let arguments = arguments.join(" ");
    match output {
        Some(output) if output.status.success() => Ok(output.text),
        Some(output) => bail!("systemctl {arguments}: {}", output.text.trim()),
        None => bail!("timed out: systemctl {arguments}"),
    }
}

/// Moves the process `pid` into a scope of its own in the daemons' slice.
pub(crate) fn adopt(pid: i32) -> Result<()> {
    let program = tool("busctl").context("busctl is missing")?;
    let manager = "org.freedesktop.systemd1";
    let answer = run_with_deadline(
        command(&program)
            .args(["call", manager, "/org/freedesktop/systemd1"])
            .args([
                &format!("{manager}.Manager"),
                "StartTransientUnit",
                "ssa(sv)a(sa(sv))",
            ])
            .args([&format!("alicloud-oss-adopted-{pid}.scope"), "fail", "2"])
            .args(["PIDs", "au", "1", &pid.to_string()])
            .args(["Slice", "s", SLICE, "0"]),
        Deadline::after(TOOL_TIME),
    )?;
    match answer {
        Some(output) if output.status.success() => {}
        Some(output) => bail!("move process {pid}: {}", output.text.trim()),
        None => bail!("move process {pid}: timed out waiting for systemd"),
    }
    // systemd replies before the move, for which there is no event.
    let deadline = Deadline::after(TOOL_TIME);
    while !is_in_slice(pid) {
        if deadline.has_passed() {
            bail!("move process {pid}: it is not in {SLICE} yet");
        }
        std::thread::sleep(MOVE_RETRY);
    }
    Ok(())
}

/// Whether the process `pid` is in the daemons' slice.
pub(crate) fn is_in_slice(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|text| text.contains(SLICE))
}

fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", PATH).stdin(Stdio::null());
    command
}

#[cfg(test)]
mod tests {
    use super::parse_version;

    #[test]
    fn the_version_is_the_second_word() {
        for (text, version) in [
            ("systemd 219\n+PAM +AUDIT\n", 219),
            ("systemd 252 (252.39-1~deb12u1)\n", 252),
            ("systemd v257.2 (x)\n", 0),
            ("systemd 257~rc1\n", 257),
            ("", 0),
        ] {
            assert_eq!(parse_version(text), version, "{text}");
        }
    }
}
