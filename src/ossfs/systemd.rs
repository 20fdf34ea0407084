//! The process of a volume as an instance of a template unit of systemd, `alicloud-oss@<volume id>.service`: outside
//! kubelet's cgroup, restarted when it dies, limited by an administrator with an ordinary drop-in,
//! its output in the journal. Only directives that systemd 219 (CentOS 7) knows are used.

use crate::config::FILE_VARIABLE;
use crate::sys::command::{PATH, run_with_deadline};
use crate::sys::deadline::Deadline;
use anyhow::{Context as _, Result, bail};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The slice that contains every daemon.
pub(crate) const SLICE: &str = "alicloud-oss.slice";
/// The template's file name.
const TEMPLATE: &str = "alicloud-oss@.service";
/// The directories of an administrator's own template (systemd.unit(5)).
const ADMINISTRATOR_DIRS: [&str; 2] = ["/etc/systemd/system", "/usr/local/lib/systemd/system"];
/// The directories where the driver's package installs it, for the usual paths of driver and state.
const PACKAGE_DIRS: [&str; 2] = ["/usr/lib/systemd/system", "/lib/systemd/system"];
/// Where the driver installs it if none of these is right; it has priority over the package's.
const RUNTIME_DIR: &str = "/run/systemd/system";
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

/// The template as the driver's package installs it, for the usual paths of driver and state.
const PACKAGED_TEMPLATE: &str = include_str!("../../packaging/systemd/alicloud-oss@.service");
/// Those paths.
const PACKAGED_PROGRAM: &str =
    "/usr/libexec/kubernetes/kubelet-plugins/volume/exec/alicloud~oss/oss";
const PACKAGED_VOLUMES: &str = "/run/alicloud-oss/volumes";
/// The line of it after which `Environment=` is inserted.
const SLICE_LINE: &str = "Slice=alicloud-oss.slice\n";

/// The template for volumes whose directories are in `volumes`, run by the driver at `program`.
fn template(program: &str, volumes: &str, config: Option<&str>) -> String {
    let quote = |text: &str| {
        let text = text
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('%', "%%");
        format!("\"{text}\"")
    };
    let environment = config.map_or(String::new(), |file| {
        format!(
            "Environment={}\n",
            quote(&format!("{FILE_VARIABLE}={file}"))
        )
    });
    // The path of a command takes no quotes in systemd 219.
    PACKAGED_TEMPLATE
        .replace(PACKAGED_PROGRAM, &program.replace('%', "%%"))
        .replace(PACKAGED_VOLUMES, &volumes.replace('%', "%%"))
        .replace(SLICE_LINE, &format!("{SLICE_LINE}{environment}"))
}

/// Installs the template unless it is there: an administrator's is not touched; the driver's own is
/// written under /run if it is missing, belongs to another driver, or was packaged for other paths.
pub(crate) fn install_template(volumes: &Path) -> Result<()> {
    let at = |directory: &&str| Path::new(directory).join(TEMPLATE);
    if ADMINISTRATOR_DIRS.iter().any(|dir| at(dir).exists()) {
        return Ok(());
    }
    let program = own_program()?;
    let config = std::env::var(FILE_VARIABLE).ok();
    let text = template(&program, &volumes.to_string_lossy(), config.as_deref());
    // systemd uses the first that exists.
    let mut found = [RUNTIME_DIR]
        .iter()
        .chain(&PACKAGE_DIRS)
        .filter_map(|dir| std::fs::read_to_string(at(dir)).ok());
    if found.next().is_some_and(|found| found == text) {
        return Ok(());
    }
    let path = at(&RUNTIME_DIR);
    // Calls that run at once write the same; a rename replaces the file at once.
    let temporary = Path::new(RUNTIME_DIR).join(format!(".{TEMPLATE}.{}", std::process::id()));
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&temporary)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| std::fs::rename(&temporary, &path))
        .with_context(|| format!("write {}", path.display()))?;
    log::info!("installed {}", path.display());
    systemctl(&["daemon-reload"])
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
    systemctl(&["start", "--no-block", &unit(id)])
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

fn systemctl(arguments: &[&str]) -> Result<()> {
    let program = tool("systemctl").context("systemctl is missing")?;
    let output = run_with_deadline(
        command(&program).args(arguments).arg("--no-ask-password"),
        Deadline::after(TOOL_TIME),
    )?;
    let arguments = arguments.join(" ");
    match output {
        Some(output) if output.status.success() => Ok(()),
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
    use super::{PACKAGED_PROGRAM, PACKAGED_TEMPLATE, PACKAGED_VOLUMES, SLICE_LINE, template};

    #[test]
    fn the_template_runs_the_driver_by_its_path() {
        let text = template(
            "/a/alicloud~oss/oss",
            "/run/alicloud-oss/volumes",
            Some("/e/50%.json"),
        );
        for line in [
            "ExecStart=/a/alicloud~oss/oss serve /run/alicloud-oss/volumes/%i",
            "Environment=\"OSS_FLEXVOLUME_CONFIG=/e/50%%.json\"",
            "Slice=alicloud-oss.slice",
            "Restart=on-failure",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!template("/o", "/v", None).contains("Environment"));
    }

    #[test]
    fn the_packaged_template_is_the_one_for_the_usual_paths() {
        let text = template(PACKAGED_PROGRAM, PACKAGED_VOLUMES, None);
        assert_eq!(text, PACKAGED_TEMPLATE);
        for (part, count) in [
            (PACKAGED_PROGRAM, 1),
            (PACKAGED_VOLUMES, 1),
            (SLICE_LINE, 1),
        ] {
            assert_eq!(text.matches(part).count(), count, "{part}");
        }
    }
}
