//! Files of the host: written in one step, and removed.

use crate::directory::Directory;
use crate::host::Host;
use anyhow::{Context as _, Result, bail};
use nix::sys::stat::Mode;
use std::fs::DirBuilder;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// Replaces the host's file at `path` in one step, and makes missing directories above it. A reader
/// sees the old file or the whole new one; on an error there is still the old one.
pub(crate) fn write_atomic(
    host: &Host,
    path: &Path,
    bytes: &[u8],
    mode: u32,
    directory_mode: u32,
) -> Result<()> {
    let located = locate(host, path)?;
    let (Some(parent), Some(name)) = (located.parent(), located.file_name()) else {
        bail!("{} is not a file", path.display());
    };
    DirBuilder::new()
        .recursive(true)
        .mode(directory_mode)
        .create(parent)
        .with_context(|| format!("make directory {}", parent.display()))?;
    let directory = Directory::open(parent)?
        .with_context(|| format!("{} was removed meanwhile", parent.display()))?;
    let name = name.to_string_lossy();
    let new = new_name(&name);
    // Left by an installer that was killed.
    directory.remove(&new)?;
    directory.write(&new, Mode::from_bits_truncate(mode), |file| {
        file.write_all(bytes)
    })?;
    directory.rename(&new, &name)?;
    directory.sync()
}

/// The name under which a file is written before it is renamed.
fn new_name(name: &str) -> String {
    format!(".{name}.new")
}

/// Removes the host's file at `path`, if it is there, and what a killed installer has left of one.
pub(crate) fn remove(host: &Host, path: &Path) -> Result<()> {
    remove_new(host, path)?;
    remove_at(&locate(host, path)?)
}

/// Removes what a killed installer has not finished writing for the host's file at `path`.
pub(crate) fn remove_new(host: &Host, path: &Path) -> Result<()> {
    let located = locate(host, path)?;
    let name = located.file_name().unwrap_or_default().to_string_lossy();
    remove_at(&located.with_file_name(new_name(&name)))
}

fn remove_at(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if !matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Err(e).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Removes the host's directory at `path` if nothing is in it.
pub(crate) fn remove_empty(host: &Host, path: Option<&Path>) {
    if let Some(Ok(located)) = path.map(|path| host.locate(path)) {
        // If it is not empty, somebody else uses it.
        let _ = std::fs::remove_dir(located);
    }
}

/// The path here of the host's `path`.
pub(crate) fn locate(host: &Host, path: &Path) -> Result<PathBuf> {
    host.locate(path)
        .with_context(|| format!("resolve {}", path.display()))
}
