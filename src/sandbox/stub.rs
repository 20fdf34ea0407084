//! Where this program takes the place of `fusermount`.

use anyhow::{Context as _, Result};
use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// The names by which libfuse 2 and 3 call it.
pub(super) const NAMES: [&str; 2] = ["fusermount", "fusermount3"];

/// The directories that libfuse may have been built to find it in.
const DIRECTORIES: [&str; 6] = [
    "/usr/bin",
    "/bin",
    "/usr/sbin",
    "/sbin",
    "/usr/local/bin",
    "/usr/local/sbin",
];

/// The programs of these names that the node has, each once.
pub(super) fn places() -> BTreeSet<PathBuf> {
    let all = DIRECTORIES
        .iter()
        .flat_map(|directory| NAMES.map(|name| Path::new(directory).join(name).canonicalize()));
    // Most are missing.
    all.flatten().collect()
}

/// This program's file. One that was replaced by an upgrade since this process started has a
/// successor at the same path, which does as well.
pub(super) fn program() -> Result<PathBuf> {
    let path = std::fs::read_link("/proc/self/exe").context("find this program")?;
    let bytes = path.as_os_str().as_bytes();
    let bytes = bytes.strip_suffix(b" (deleted)").unwrap_or(bytes);
    Ok(PathBuf::from(std::ffi::OsStr::from_bytes(bytes)))
}
