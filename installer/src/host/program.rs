//! Running programs: no shell, an empty environment, stdin from /dev/null, a deadline. Those of the
//! host are run through a stage (`host::stage`).

use crate::host::Host;
use crate::host::exec::{self, NotStarted};
use crate::host::stage::{COPY, LEAVE, MISSING, STAY};
use alicloud_oss::sys::command::{PATH, run_with_deadline};
use alicloud_oss::sys::deadline::Deadline;
use anyhow::{Context as _, Error, Result, anyhow, bail};
use nix::errno::Errno;
use std::ffi::OsStr;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The output of a program, stdout and stderr together, and its exit status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) text: String,
    /// The exit status; nothing if a signal ended it.
    pub(crate) status: Option<i32>,
}

impl Output {
    /// The text if the exit status is 0.
    pub(crate) fn success(self) -> Result<String> {
        match self.status {
            Some(0) => Ok(self.text),
            Some(status) => bail!("exit status {status}: {}", last_line(&self.text)),
            None => bail!("killed by a signal: {}", last_line(&self.text)),
        }
    }

    /// Whether the host has no such program.
    pub(crate) fn is_missing(&self) -> bool {
        self.status == Some(MISSING)
    }
}

/// The last line that is not empty, of bounded length.
fn last_line(text: &str) -> String {
    let line = text.lines().rfind(|line| !line.trim().is_empty());
    line.unwrap_or("no output").chars().take(300).collect()
}

/// Runs the file `program` as it is seen from here.
pub(crate) fn run(program: &Path, args: &[&str], limit: Duration) -> Result<Output> {
    let mut command = Command::new(program);
    command.args(args);
    finish(command, limit)
        .map_err(|e| explained(program, e))
        .with_context(|| format!("run {}", program.display()))
}

/// Runs the file `program` without arguments, with one variable more in its environment.
pub(crate) fn run_with_variable(
    program: &Path,
    (name, value): (&str, &str),
    limit: Duration,
) -> Result<Output> {
    let mut command = Command::new(program);
    clear(&mut command).env(name, value);
    run_to_end(command, limit)
        .map_err(|e| explained(program, e))
        .with_context(|| format!("run {}", program.display()))
}

/// `error`, or what it means if it is that of the start of `program`.
fn explained(program: &Path, error: Error) -> Error {
    let code = error.downcast_ref::<std::io::Error>();
    let code = code.and_then(std::io::Error::raw_os_error);
    match code.map(|code| exec::explain(program, Errno::from_raw(code))) {
        Some(NotStarted::Refused(why)) => anyhow!(why),
        Some(NotStarted::Missing) => anyhow!("there is no such file"),
        None => error,
    }
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
/// and its memory is not counted as the installer's.
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
    run_staged(COPY, &[file, copy], host, program, args, limit)
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
    clear(&mut command);
    run_to_end(command, limit)
}

fn clear(command: &mut Command) -> &mut Command {
    // No current_dir: without a fork(2) of this process's own, a file that is no program for this
    // machine is an error, and not given to a shell.
    command
        .env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C")
        // Package managers ask nothing (debconf(7)).
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
}

fn run_to_end(mut command: Command, limit: Duration) -> Result<Output> {
    match run_with_deadline(&mut command, Deadline::after(limit))? {
        Some(output) => Ok(Output {
            text: output.text,
            status: output.status.code(),
        }),
        None => bail!("it did not end within {} s", limit.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Output, run};
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;
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
    }

    #[test]
    fn a_program_that_cannot_be_started_is_told_from_one_that_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let machine = nix::sys::utsname::uname().unwrap();
        let machine = machine.machine().to_string_lossy();
        let unfit = format!("it is not a program for {machine}");
        let loader = "the file exists, but the dynamic loader or interpreter that it names does not: \
                      use a build for this system";
        for (name, text, mode, expected) in [
            ("text", "echo a shell has run this\n", 0o755, unfit.as_str()),
            ("elf", "\x7fELF\x02\x01", 0o755, &unfit),
            ("script", "#!/no/such/interpreter\n", 0o755, loader),
            ("data", "", 0o644, "Permission denied"),
        ] {
            let path = dir.path().join(name);
            let source = dir.path().join("source");
            std::fs::write(&source, text).unwrap();
            support::copy_program(&source, &path);
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let error = format!("{:#}", run(&path, &[], LIMIT).unwrap_err());
            assert_eq!(error, format!("run {}: {expected}", path.display()));
        }
        let error = format!("{:#}", run(Path::new("/no/such"), &[], LIMIT).unwrap_err());
        assert_eq!(error, "run /no/such: there is no such file");
    }

    #[test]
    fn a_program_is_killed_at_the_deadline() {
        let error = run(
            Path::new("/bin/sleep"),
            &["1000"],
            Duration::from_millis(50),
        );
        let error = format!("{:#}", error.unwrap_err());
        assert_eq!(error, "run /bin/sleep: it did not end within 0 s");
    }

    #[test]
    fn a_failure_has_the_last_line() {
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
