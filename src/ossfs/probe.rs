//! Whether a mounted ossfs answers, and its store with it. The answer may take as long as the daemon
//! hangs, so a helper process waits for it.

use crate::mounts::directory::Directory;
use crate::sys::deadline::Deadline;
use crate::sys::helper::Helper;
use crate::sys::lock::Lock;
use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::fstatat;
use nix::sys::statfs::{FUSE_SUPER_MAGIC, fstatfs};
use nix::sys::statvfs::FsFlags;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What a probe found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// The daemon and its store answer; the flags are those of the mount.
    Serving(FsFlags),
    /// The daemon has ended: ENOTCONN, or nothing is mounted any more.
    Dead,
    /// The daemon answers, but its store does not as it should; the text tells how.
    Unusable(String),
    /// No answer by the deadline.
    Unresponsive,
}

/// The health of the ossfs mounted at `directory`. At most one probe runs for each file `lock`, which is made
/// if it is missing: one that was killed at its deadline may wait in the kernel until the daemon answers,
/// however often it is asked for. Without the file's directory nothing is locked.
pub(crate) fn health(directory: &Path, lock: &Path, deadline: Deadline) -> Result<Health> {
    let lock = match Lock::acquire(lock, deadline) {
        Err(_) if deadline.has_passed() => return Ok(Health::Unresponsive),
        lock => lock?,
    };
    let probe = Probe {
        directory: directory.to_owned(),
    };
    let answer = match &lock {
        Some(lock) => probe.call_holding(lock, deadline),
        None => probe.call(deadline),
    };
    let answer = answer.context("probe the mount")?;
    Ok(answer.map_or(Health::Unresponsive, Health::from))
}

/// The helper process: it requests the file system's statistics, which ossfs answers itself once it
/// has started, and then looks up a random name, for which ossfs sends a request to the store. Never
/// a listing: ossfs would request every object of the directory first.
#[derive(Serialize, Deserialize)]
pub(crate) struct Probe {
    directory: PathBuf,
}

/// What the helper process has seen. Error numbers are those of Linux.
#[derive(Serialize, Deserialize, Debug)]
pub(crate) enum Answer {
    /// No FUSE file system is mounted there.
    NotMounted,
    /// The store answered; the flags of statvfs(3).
    Served {
        flags: u64,
    },
    StatfsFailed {
        errno: i32,
    },
    LookupFailed {
        errno: i32,
    },
    /// The random name was found.
    NameFound,
}

impl Helper for Probe {
    const NAME: &'static str = "oss-probe";
    type Output = Answer;

    fn run(self) -> Result<Answer> {
        probe(&self.directory)
    }
}

fn probe(directory: &Path) -> Result<Answer> {
    // Opened once, for it may be unmounted meanwhile: then the directory below would answer.
    let Some(directory) = Directory::open(directory)? else {
        return Ok(Answer::NotMounted);
    };
    let statistics = match fstatfs(&directory) {
        Ok(statistics) if statistics.filesystem_type() != FUSE_SUPER_MAGIC => {
            return Ok(Answer::NotMounted);
        }
        Ok(statistics) => statistics,
        Err(e) => return Ok(Answer::StatfsFailed { errno: e as i32 }),
    };
    let name = std::fs::read_to_string("/proc/sys/kernel/random/uuid").context("make a name")?;
    let name = format!(".{}", name.trim());
    Ok(
        match fstatat(&directory, name.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            // Denied is an answer of the store, too: who may only write a prefix gets it.
            Err(Errno::ENOENT | Errno::EACCES | Errno::EPERM) => Answer::Served {
                flags: statistics.flags().bits(),
            },
            Err(e) => Answer::LookupFailed { errno: e as i32 },
            Ok(_) => Answer::NameFound,
        },
    )
}

impl From<Answer> for Health {
    fn from(answer: Answer) -> Self {
        let (what, errno) = match answer {
            Answer::NotMounted => return Self::Dead,
            Answer::Served { flags } => return Self::Serving(FsFlags::from_bits_truncate(flags)),
            Answer::NameFound => {
                return Self::Unusable(
                    "a random name exists: the server at the url is not an object store".to_owned(),
                );
            }
            Answer::StatfsFailed { errno } => ("statfs", Errno::from_raw(errno)),
            Answer::LookupFailed { errno } => ("lookup", Errno::from_raw(errno)),
        };
        match errno {
            // ECONNABORTED: the connection broke while the request was pending.
            Errno::ENOTCONN | Errno::ECONNABORTED => Self::Dead,
            _ => Self::Unusable(format!("a {what} failed: {}", errno.desc())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, Health, probe};
    use nix::sys::statvfs::FsFlags;

    #[test]
    fn a_directory_where_nothing_is_mounted_is_dead() {
        let dir = tempfile::tempdir().unwrap();
        let health = |path: &std::path::Path| Health::from(probe(path).unwrap());
        assert_eq!(health(dir.path()), Health::Dead);
        assert_eq!(health(&dir.path().join("missing")), Health::Dead);
    }

    #[test]
    fn answers_tell_dead_from_unusable() {
        for (answer, health) in [
            (
                Answer::Served { flags: 3 },
                Health::Serving(FsFlags::ST_RDONLY | FsFlags::ST_NOSUID),
            ),
            (Answer::StatfsFailed { errno: 107 }, Health::Dead),
            (Answer::LookupFailed { errno: 107 }, Health::Dead),
            (Answer::LookupFailed { errno: 103 }, Health::Dead),
            (
                Answer::LookupFailed { errno: 5 },
                Health::Unusable("a lookup failed: I/O error".to_owned()),
            ),
        ] {
            let case = format!("{answer:?}");
            assert_eq!(Health::from(answer), health, "{case}");
        }
        assert!(matches!(Answer::NameFound.into(), Health::Unusable(_)));
    }
}
