//! Bind mounts, and the flags and propagation of one mount.

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

/// Takes the mount that is open as `mounted` out of its peer group: what is mounted on it is not
/// passed on, and a bind mount of it starts a new group.
pub(crate) fn make_private(mounted: &Directory) -> Result<()> {
    mount(
        None::<&str>,
        &mounted.proc_path(),
        None::<&str>,
        MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .context("make the mount private")
}

/// The flags of mount(2) for the `options` of one mount, as mountinfo shows them.
pub(crate) fn flags_of(options: &str) -> MsFlags {
    options
        .split(',')
        .map(|option| match option {
            "ro" => MsFlags::MS_RDONLY,
            "nosuid" => MsFlags::MS_NOSUID,
            "nodev" => MsFlags::MS_NODEV,
            "noexec" => MsFlags::MS_NOEXEC,
            "noatime" => MsFlags::MS_NOATIME,
            "nodiratime" => MsFlags::MS_NODIRATIME,
            "relatime" => MsFlags::MS_RELATIME,
            _ => MsFlags::empty(),
        })
        .fold(MsFlags::empty(), |all, flag| all | flag)
}

/// Sets exactly `flags` on the mount that is open as `mounted`, and on no other of its file system.
pub(crate) fn set_flags(mounted: &Directory, flags: MsFlags) -> Result<()> {
    mount(
        None::<&str>,
        &mounted.proc_path(),
        None::<&str>,
        MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags,
        None::<&str>,
    )
    .context("set the flags of the mount")
}
