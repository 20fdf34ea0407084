//! A container as a runtime makes it: a process whose root directory has nothing but one volume, in
//! a mount namespace that it has pivoted into.

use anyhow::{Context as _, Result};
use nix::mount::MsFlags;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode, Stdio};
use support::namespace::{bind, own_mounts, pivot_into, this_program};

/// The first argument of a container's process: `container VOLUME ROOT private|slave`.
pub(crate) const WORD: &str = "container";

/// A running container; it ends when dropped.
pub(crate) struct Container(Child);

impl Container {
    /// Starts a container that has `volume` at `/data`, in a root directory made at `root`, with
    /// the propagation of Kubernetes' default or, as `slave`, that of `HostToContainer`.
    ///
    /// # Errors
    /// If it does not start, as when the volume's daemon has just died.
    pub(crate) fn start(volume: &Path, root: &Path, slave: bool) -> Result<Self> {
        std::fs::create_dir_all(root.join("data")).context("make the root directory")?;
        let propagation = if slave { "slave" } else { "private" };
        let mut process = this_program(WORD, &[volume, root, Path::new(propagation)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("start a process")?;
        let mut line = String::new();
        let output = process.stdout.take().context("its output")?;
        BufReader::new(output).read_line(&mut line)?;
        let container = Self(process);
        anyhow::ensure!(line == "ready\n", "{line}");
        Ok(container)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// The volume as the container sees it.
    pub(crate) fn volume(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root/data", self.pid()))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The container's own part. Says "ready", and lives until its stdin closes.
pub(crate) fn run(arguments: &[OsString]) -> Result<ExitCode> {
    let said = match enter(arguments) {
        Ok(()) => "ready".to_owned(),
        Err(e) => format!("{e:#}"),
    };
    writeln!(std::io::stdout(), "{said}")?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(ExitCode::SUCCESS)
}

fn enter(arguments: &[OsString]) -> Result<()> {
    let [volume, root, propagation] = arguments else {
        anyhow::bail!("{WORD} is not for people");
    };
    set_pdeathsig(Signal::SIGKILL)?;
    let root = Path::new(root);
    own_mounts(match propagation.to_str() {
        Some("slave") => MsFlags::MS_SLAVE,
        _ => MsFlags::MS_PRIVATE,
    })?;
    bind(root, root)?;
    bind(Path::new(volume), &root.join("data"))?;
    pivot_into(root)
}
