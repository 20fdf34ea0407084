//! Whether a mounted ossfs answers and its store with it. What asks may hang for as long as the
//! daemon does, so a child process asks.

use crate::child;
use crate::deadline::Deadline;
use crate::mounts::directory::Directory;
use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::fstatat;
use nix::sys::statfs::{FUSE_SUPER_MAGIC, fstatfs};
use nix::sys::statvfs::FsFlags;
use std::path::Path;

/// What a probe found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// The daemon and its store answer; the flags are those of the mount.
    Serving(FsFlags),
    /// The daemon has ended: ENOTCONN, or nothing is mounted any more.
    Dead,
    /// The daemon answers, but its store does not as it should; the text says how.
    Unusable(String),
    /// No answer by the deadline.
    Silent,
}

/// The health of the ossfs mounted at `directory`.
pub(crate) fn health(directory: &Path, deadline: Deadline) -> Result<Health> {
    let answer = child::ask(child::command(child::PROBE).arg(directory), deadline)
        .context("probe the mount")?;
    Ok(answer.map_or(Health::Silent, |(words, _)| parse(&words)))
}

/// The child's part: asks for the file system's statistics, which ossfs answers itself once its
/// start is over, and then for one name that nobody has, which it asks the store for. Never a
/// listing: ossfs would ask for every object of the directory first.
pub(crate) fn ask(directory: &Path) -> Result<String> {
    // Opened once, for it may be unmounted meanwhile: then the directory below would answer.
    let Some(directory) = Directory::open(directory)? else {
        return Ok("gone".to_owned());
    };
    let statistics = match fstatfs(&directory) {
        Ok(statistics) if statistics.filesystem_type() != FUSE_SUPER_MAGIC => {
            return Ok("gone".to_owned());
        }
        Ok(statistics) => statistics,
        Err(e) => return Ok(format!("statfs {}", e as i32)),
    };
    let name = std::fs::read_to_string("/proc/sys/kernel/random/uuid").context("make a name")?;
    let name = format!(".{}", name.trim());
    let found = match fstatat(&directory, name.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
        // Denied is an answer of the store, too: who may only write a prefix gets it.
        Err(Errno::ENOENT | Errno::EACCES | Errno::EPERM) => {
            format!("serving {}", statistics.flags().bits())
        }
        Err(e) => format!("lookup {}", e as i32),
        Ok(_) => "exists 0".to_owned(),
    };
    Ok(found)
}

fn parse(answer: &str) -> Health {
    let (what, number) = answer.split_once(' ').unwrap_or((answer, ""));
    let errno = || Errno::from_raw(number.parse().unwrap_or(0));
    match what {
        "gone" => Health::Dead,
        "serving" => Health::Serving(FsFlags::from_bits_truncate(number.parse().unwrap_or(0))),
        "statfs" | "lookup" if errno() == Errno::ENOTCONN => Health::Dead,
        // The connection broke while the question was under way.
        "statfs" | "lookup" if errno() == Errno::ECONNABORTED => Health::Dead,
        "statfs" | "lookup" => Health::Unusable(format!("a {what} answers {}", errno().desc())),
        "exists" => Health::Unusable(
            "a name that nobody made exists: what answers at the url is not an object store"
                .to_owned(),
        ),
        _ => Health::Unusable(format!("the probe failed: {answer}")),
    }
}

#[cfg(test)]
mod tests {
    use super::{Health, ask, parse};
    use nix::sys::statvfs::FsFlags;

    #[test]
    fn a_directory_where_nothing_is_mounted_is_dead() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(parse(&ask(dir.path()).unwrap()), Health::Dead);
        assert_eq!(
            parse(&ask(&dir.path().join("missing")).unwrap()),
            Health::Dead
        );
    }

    #[test]
    fn answers_tell_dead_from_unusable() {
        let unusable = |text: &str| Health::Unusable(text.to_owned());
        for (answer, health) in [
            (
                "serving 3",
                Health::Serving(FsFlags::ST_RDONLY | FsFlags::ST_NOSUID),
            ),
            ("statfs 107", Health::Dead),
            ("lookup 107", Health::Dead),
            ("lookup 103", Health::Dead),
            ("lookup 5", unusable("a lookup answers I/O error")),
            ("error no uuid", unusable("the probe failed: error no uuid")),
            ("", unusable("the probe failed: ")),
        ] {
            assert_eq!(parse(answer), health, "{answer}");
        }
        assert!(matches!(parse("exists 0"), Health::Unusable(_)));
    }
}
