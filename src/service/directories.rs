//! What of the node's file system ossfs may reach through options that the administrator allows
//! (`allowedOptions`), beyond what every sandbox has.

use crate::options::option::MountOption;
use crate::sys::{root_only, tree};
use anyhow::{Context as _, Result};
use nix::unistd::{Gid, Uid, fchown};
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// What options reach on the node.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Reach {
    /// Directories of the volume's own, below the one that the option names: each volume's ossfs has
    /// a user of its own, who can write nowhere else. They are emptied before ossfs is started: with
    /// what an ossfs that died has left in `use_cache`, the next one serves bytes that were never
    /// uploaded (seen with ossfs 1.91).
    pub(crate) directories: Vec<PathBuf>,
    /// Files that ossfs appends to.
    pub(crate) written: Vec<PathBuf>,
    /// Files and directories that ossfs reads.
    pub(crate) read: Vec<PathBuf>,
}

/// `options` as the ossfs of the volume `id` gets them, and what they reach.
pub(crate) fn reach(options: &[MountOption], id: &str) -> (Vec<MountOption>, Reach) {
    let mut reach = Reach::default();
    let options = options
        .iter()
        .map(|option| {
            let path = option.value().filter(|value| value.starts_with('/'));
            let Some(path) = path.map(PathBuf::from) else {
                return option.clone();
            };
            match option.name() {
                name @ ("use_cache" | "tmpdir") => {
                    let own = path.join(format!("alicloud-oss-{id}"));
                    let text = own.to_string_lossy().into_owned();
                    reach.directories.push(own);
                    MountOption::with_value(name, text)
                }
                "logfile" | "set_check_cache_sigusr1" => {
                    reach.written.push(path);
                    option.clone()
                }
                "ahbe_conf" | "mime" | "credlib" | "credential_process" => {
                    reach.read.push(path);
                    option.clone()
                }
                _ => option.clone(),
            }
        })
        .collect();
    (options, reach)
}

/// Makes what `reach` has for writing, for the user `uid`. An existing file keeps its content.
pub(crate) fn make(reach: &Reach, uid: u32) -> Result<()> {
    for path in &reach.directories {
        make_below_root(path, uid)?;
    }
    for path in &reach.written {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            .custom_flags((nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK).bits())
            .open(path)
            .with_context(|| format!("open {}", path.display()))?;
        give(&file, path, uid)?;
    }
    Ok(())
}

/// `make_directory`, with the directories above it, which stay root's.
pub(crate) fn make_below_root(path: &Path, uid: u32) -> Result<()> {
    root_only::make_parents(path)?;
    make_directory(path, uid)
}

/// Makes the directory at `path` if it is missing, closed to all but the user `uid`, who owns it.
fn make_directory(path: &Path, uid: u32) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(e).with_context(|| format!("make directory {}", path.display()));
        }
        _ => {}
    }
    let directory = OpenOptions::new()
        .read(true)
        .custom_flags((nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_DIRECTORY).bits())
        .open(path)
        .with_context(|| format!("open directory {}", path.display()))?;
    give(&directory, path, uid)
}

fn give(file: &File, path: &Path, uid: u32) -> Result<()> {
    fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(uid)))
        .with_context(|| format!("change the owner of {}", path.display()))
}

/// Removes the directory at `path` with all that is in it, if it is there. Symbolic links in it are
/// removed and not followed.
pub(crate) fn remove_directory(path: &Path) -> Result<()> {
    match tree::empty(path).and_then(|()| std::fs::remove_dir(path)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Reach, reach};
    use crate::options::option::MountOption;

    #[test]
    fn caches_get_a_directory_for_each_volume() {
        let options = [
            MountOption::with_value("use_cache", "/var/cache/oss"),
            MountOption::with_value("logfile", "/var/log/x.log"),
            MountOption::with_value("mime", "/etc/mime"),
            MountOption::with_value("uid", "1"),
            MountOption::flag("curldbg"),
        ];
        let (options, found) = reach(&options, "ab");
        let own = "/var/cache/oss/alicloud-oss-ab";
        assert_eq!(options[0].render(), format!("use_cache={own}"));
        assert_eq!(options[1].render(), "logfile=/var/log/x.log");
        assert_eq!(options[3].render(), "uid=1");
        assert_eq!(
            found,
            Reach {
                directories: vec![own.into()],
                written: vec!["/var/log/x.log".into()],
                read: vec!["/etc/mime".into()],
            }
        );
    }
}
