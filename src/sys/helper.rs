//! Work that is done in a helper process: what may hang in the kernel for as long as a FUSE daemon
//! hangs (a killed task still waits for a request that the daemon has read). The helper is this
//! program under another name (`argv[0]`), so it needs no file of its own, and nothing that kubelet
//! passes can start one.
//!
//! Its one argument is a JSON value, and so is its output: the result, or the message of an error.

use crate::sys::command::{PATH, run_with_deadline};
use crate::sys::deadline::Deadline;
use crate::sys::lock::Lock;
use anyhow::{Context as _, Result, anyhow, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::ffi::OsString;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};

/// One kind of helper process: the value itself is its input.
pub(crate) trait Helper: Serialize + DeserializeOwned {
    /// The helper's `argv[0]`.
    const NAME: &'static str;
    type Output: Serialize + DeserializeOwned;

    /// The work itself, in the helper process.
    fn run(self) -> Result<Self::Output>;

    /// Has a helper process do the work. `None` if it has not ended by `deadline`: it is killed, as
    /// far as a task that waits for a daemon can be. An error if the work fails, and also if the
    /// helper is killed or ends without a result.
    fn call(&self, deadline: Deadline) -> Result<Option<Self::Output>> {
        call(command(Self::NAME), self, deadline)
    }

    /// `call`, with a helper process that holds `lock`, too, until it has really ended: one that was killed
    /// may still wait in the kernel.
    fn call_holding(&self, lock: &Lock, deadline: Deadline) -> Result<Option<Self::Output>> {
        let held = lock
            .as_fd()
            .try_clone_to_owned()
            .context("pass on a lock")?;
        let mut command = command(Self::NAME);
        // No other process that is started meanwhile inherits it.
        command.stdin(held);
        call(command, self, deadline)
    }
}

fn call<H: Helper>(
    mut command: Command,
    input: &H,
    deadline: Deadline,
) -> Result<Option<H::Output>> {
    let input = serde_json::to_string(input).context("write the input of a helper")?;
    let Some(output) = run_with_deadline(command.arg(input), deadline)? else {
        return Ok(None);
    };
    let name = H::NAME;
    if !output.status.success() {
        bail!("the helper {name} ended with {}", output.status);
    }
    let result: Result<H::Output, String> = serde_json::from_str(&output.text)
        .with_context(|| format!("read the output of the helper {name}"))?;
    result.map(Some).map_err(|message| anyhow!(message))
}

/// The helper's side: reads its input from `args`, does its work, and prints the result for the
/// parent.
pub(crate) fn run<H: Helper>(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    if !dies_with_parent() {
        return ExitCode::FAILURE;
    }
    let result = args
        .next()
        .and_then(|input| serde_json::from_str::<H>(input.to_str()?).ok())
        .context("only the driver starts this program")
        .and_then(H::run)
        .map_err(|e| format!("{e:#}"));
    // The parent may have given up: then nothing reads this.
    let printed = serde_json::to_string(&result)
        .map_err(std::io::Error::other)
        .and_then(|json| std::io::stdout().write_all(json.as_bytes()));
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Has this process end with its parent, which holds the locks for what is done here: after the
/// death of the parent the next call would find it at work on the same mount points. False if the
/// parent has ended already.
fn dies_with_parent() -> bool {
    let _ = prctl::set_pdeathsig(Signal::SIGKILL);
    // Only the parent reads what this process prints (poll(2): POLLERR without a reader).
    let stdout = std::io::stdout();
    let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    let _ = poll(&mut fds, PollTimeout::ZERO);
    fds[0].any() != Some(true)
}

/// This program, to be run as `name`, with nothing of the caller's environment.
pub(crate) fn command(name: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0(name)
        .env_clear()
        .env("PATH", PATH)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

#[cfg(test)]
mod tests {
    use super::{Helper, call};
    use crate::sys::deadline::Deadline;
    use serde::{Deserialize, Serialize};
    use std::process::Command;
    use std::time::Duration;

    #[derive(Serialize, Deserialize)]
    struct Double(u32);

    impl Helper for Double {
        const NAME: &'static str = "oss-double";
        type Output = u32;

        fn run(self) -> anyhow::Result<u32> {
            Ok(self.0 * 2)
        }
    }

    /// What `Double` gives if the helper process runs the shell's `script`.
    fn result(script: &str) -> Result<Option<u32>, String> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        let deadline = Deadline::after(Duration::from_secs(60));
        call(command, &Double(21), deadline).map_err(|e| format!("{e:#}"))
    }

    #[test]
    fn a_result_or_an_error_comes_back() {
        assert_eq!(result(r#"echo '{"Ok":42}'"#), Ok(Some(42)));
        let error = result(r#"echo '{"Err":"no such number"}'"#);
        assert_eq!(error, Err("no such number".to_owned()));
        let input = result(r#"echo "{\"Ok\":$0}""#);
        assert_eq!(input, Ok(Some(21)));
    }

    #[test]
    fn a_helper_that_fails_or_is_killed_is_an_error() {
        for (script, expected) in [
            ("exit 1", "the helper oss-double ended with exit status: 1"),
            (
                r#"echo '{"Ok":42}'; exit 3"#,
                "the helper oss-double ended with exit status: 3",
            ),
            (
                "kill -KILL $$",
                "the helper oss-double ended with signal: 9 (SIGKILL)",
            ),
        ] {
            assert_eq!(result(script), Err(expected.to_owned()), "{script}");
        }
        for script in ["", "echo 42", r#"echo '{"Ok":"x"}'"#] {
            let error = result(script).unwrap_err();
            let expected = "read the output of the helper oss-double: ";
            assert!(error.starts_with(expected), "{script}: {error}");
        }
    }
}
