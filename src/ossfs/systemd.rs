//! The process of a volume as an instance of a template unit of systemd, `alicloud-oss@<volume id>.service`: outside
//! kubelet's cgroup, restarted when it dies, limited by an administrator with an ordinary drop-in,
//! its output in the journal. Its unit files: `unit_files`.

use crate::ossfs::dbus::{self, Body, Connection, Refused};
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

/// The name of the instance of the volume `id`.
pub(crate) fn unit(id: &str) -> String {
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
    let unit = unit(id);
    or_tool(
        |systemd| {
            systemd
                .call("StartUnit", Body::default().string(&unit).string("replace"))
                .map(drop)
        },
        || systemctl(&["start", "--no-block", &unit]).map(drop),
    )
}

/// Stops the instance of the volume `id`, and waits until it has. There being none is an error.
pub(crate) fn stop(id: &str) -> Result<()> {
    let unit = unit(id);
    or_tool(
        |systemd| {
            let job = systemd.call("StopUnit", Body::default().string(&unit).string("replace"))?;
            systemd.wait_for_job(&dbus::string_of(&job)?).map(drop)
        },
        || systemctl(&["stop", &unit]).map(drop),
    )?;
    // Else an instance that was stopped during its start stays in systemd's list as failed. For one
    // that has not failed this is an error.
    let reset = or_tool(
        |systemd| {
            systemd
                .call("ResetFailedUnit", Body::default().string(&unit))
                .map(drop)
        },
        || systemctl(&["reset-failed", &unit]).map(drop),
    );
    if let Err(e) = reset {
        log::debug!("{e:#}");
    }
    Ok(())
}

/// Does `direct` over systemd's private socket, or `tool` where that is not there or fails. What systemd
/// itself refuses is refused.
fn or_tool<T>(
    direct: impl FnOnce(&mut Connection) -> Result<T>,
    tool: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let connected = Connection::open(Path::new(dbus::SOCKET), Deadline::after(TOOL_TIME));
    match connected.and_then(|mut systemd| direct(&mut systemd)) {
        Err(e) if !e.is::<Refused>() => {
            log::debug!("{e:#}; trying systemd's own programs");
            tool()
        }
        other => other,
    }
}

/// Has systemd read its unit files again.
pub(crate) fn reload() -> Result<()> {
    or_tool(
        |systemd| systemd.call("Reload", &Body::default()).map(drop),
        || systemctl(&["daemon-reload"]).map(drop),
    )
}

/// systemd's version; 0 if it cannot be told.
pub(crate) fn version() -> Result<u32> {
    let text = or_tool(
        |systemd| systemd.string_property("Version"),
        || systemctl(&["--version"]),
    )?;
    Ok(parse_version(&text))
}

/// The version in what systemd calls it, "252.39-1" or "systemd 219", or in what `systemctl --version`
/// prints: "systemd 252 (252.39-1)".
fn parse_version(text: &str) -> u32 {
    let text = text.strip_prefix("systemd").unwrap_or(text).trim_start();
    let number = text.split_whitespace().next().unwrap_or_default();
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

/// Moves the process `pid` into a scope of its own in the slice of volumes.
pub(crate) fn adopt(pid: i32) -> Result<()> {
    let scope = format!("alicloud-oss-adopted-{pid}.scope");
    or_tool(
        |systemd| {
            let mut body = Body::default();
            body.transient_unit(&scope, &[pid.cast_unsigned()], SLICE);
            systemd.call("StartTransientUnit", &body).map(drop)
        },
        || start_scope(&scope, pid),
    )
    .with_context(|| format!("move process {pid}"))?;
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

/// The same as StartTransientUnit in `adopt`, by systemd's own program.
fn start_scope(scope: &str, pid: i32) -> Result<()> {
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
            .args([scope, "fail", "2"])
            .args(["PIDs", "au", "1", &pid.to_string()])
            .args(["Slice", "s", SLICE, "0"]),
        Deadline::after(TOOL_TIME),
    )?;
    match answer {
        Some(output) if output.status.success() => Ok(()),
        Some(output) => bail!("{}", output.text.trim()),
        None => bail!("timed out waiting for systemd"),
    }
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
            ("252.39-1~deb12u1", 252),
            ("systemd 219", 219),
            ("systemd 257~rc1\n", 257),
            ("", 0),
        ] {
            assert_eq!(parse_version(text), version, "{text}");
        }
    }
}
