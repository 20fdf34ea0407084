//! Bind mounts.

use crate::mounts::directory::Directory;
use anyhow::{Context as _, Result};
use nix::mount::{MsFlags, mount};

/// Bind mounts `source` at `target`, with the flags of `source`: nosuid, nodev and ro are its own.
/// What is at the paths meanwhile does not matter, the directories are open.
pub(crate) fn bind(source: &Directory, target: &Directory) -> Result<()> {
    mount(
        Some(&source.proc_path()),
        &target.proc_path(),
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .context("bind mount")
}
