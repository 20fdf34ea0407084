//! Programs run to their end.

use anyhow::{Context as _, Result, ensure};
use std::process::{Command, Output, Stdio};

pub(crate) fn output(command: &mut Command) -> Result<Output> {
    command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {:?}", command.get_program()))
}

pub(crate) fn run(command: &mut Command) -> Result<()> {
    let done = output(command)?;
    ensure!(
        done.status.success(),
        "{command:?}: {}\n{}",
        done.status,
        text(&done)
    );
    Ok(())
}

pub(crate) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
