//! One line of a mount table (proc_pid_mountinfo(5)), from text to a value.

use crate::descriptor::Descriptor;
use std::path::PathBuf;

/// One line of mountinfo, the fields that are of use here.
#[derive(Debug, PartialEq, Eq)]
pub struct Mount {
    pub id: u64,
    pub parent: u64,
    /// The device number, `major:minor`.
    pub device: String,
    /// The directory of the file system that is mounted.
    pub root: PathBuf,
    /// Where it is mounted, as the processes of the table's mount namespace see the path.
    pub mount_point: PathBuf,
    /// The options of this mount alone, like `ro,nosuid`.
    pub options: String,
    /// The peer group that this mount shares its events with, and the one that it follows.
    pub shared: Option<u64>,
    pub master: Option<u64>,
    /// The type of its file system, with the subtype: `fuse.ossfs`.
    pub fs_type: String,
    pub source: String,
}

impl Mount {
    /// Whether this is a file system of a daemon that the driver can run, like `fuse.ossfs`, and not
    /// just any FUSE file system.
    pub fn is_ossfs(&self) -> bool {
        Descriptor::of_fs_type(&self.fs_type).is_some()
    }
}

/// The mount that `line` describes; `None` for a line that is not as the manual describes.
pub(crate) fn parse(line: &str) -> Option<Mount> {
    let (fixed, rest) = line.split_once(" - ")?;
    let mut fixed = fixed.split(' ');
    let mut rest = rest.split(' ');
    let mut mount = Mount {
        id: fixed.next()?.parse().ok()?,
        parent: fixed.next()?.parse().ok()?,
        device: fixed.next()?.to_owned(),
        root: unescape(fixed.next()?).into(),
        mount_point: unescape(fixed.next()?).into(),
        options: fixed.next()?.to_owned(),
        shared: None,
        master: None,
        fs_type: unescape(rest.next()?),
        source: unescape(rest.next()?),
    };
    for field in fixed {
        match field.split_once(':') {
            Some(("shared", group)) => mount.shared = group.parse().ok(),
            Some(("master", group)) => mount.master = group.parse().ok(),
            _ => {}
        }
    }
    Some(mount)
}

/// `field` without the octal escapes (`\040`) that the kernel writes for blanks and backslashes.
fn unescape(field: &str) -> String {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let code = (first == b'\\')
            .then(|| tail.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
