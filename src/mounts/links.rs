//! Symbolic links on the way to kubelet's root directory. Administrators move that directory to
//! another disk and leave a link (`/var/lib/kubelet` to `/data/kubelet`). Such a link is followed if
//! nobody but root can have made it: every directory on the way, before and after it, is root's and
//! can be written by nobody else (path_resolution(7), symlink(7)).

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

/// As many as the kernel follows (MAXSYMLINKS, path_resolution(7)).
const MOST_LINKS: usize = 40;
/// A directory that is only passed: no request goes to a FUSE daemon (O_PATH, open(2)).
const OPEN: OFlag = OFlag::O_PATH
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// The absolute `path` without symbolic links; `path` itself where it has none, or where a part of it
/// is not there.
///
/// # Errors
/// A link that somebody else than root can have made or can redirect, one that leads nowhere, and
/// something that is no directory.
pub(crate) fn resolve(path: &Path) -> Result<PathBuf> {
    resolve_in(Path::new("/"), path)
}

/// `resolve` with `root` in the place of `/`, as after chroot(2); the result is a path below that. For
/// the installer, which sees the node's root as a directory.
///
/// # Errors
/// As `resolve`, with paths as the node sees them.
pub fn resolve_in(root: &Path, path: &Path) -> Result<PathBuf> {
    // The root itself may be seen through a link, as /proc/PID/root is one (proc_pid_root(5)).
    let first = open(root, OPEN.difference(OFlag::O_NOFOLLOW), Mode::empty())
        .with_context(|| format!("open {root:?}"))?;
    let mut walk = Walk {
        open: vec![first],
        path: PathBuf::from("/"),
        links: 0,
    };
    let mut left: VecDeque<OsString> = names(path).collect();
    while let Some(name) = left.pop_front() {
        if name == ".." {
            walk.leave();
            continue;
        }
        match walk.enter(&name) {
            Ok(()) => walk.check_last()?,
            // Nothing there is for the caller to find out.
            Err(Errno::ENOENT) if walk.links == 0 => break,
            Err(Errno::ENOTDIR | Errno::ELOOP) => {
                let target = walk.link(&name)?;
                names(&target)
                    .collect::<Vec<_>>()
                    .into_iter()
                    .rev()
                    .for_each(|name| left.push_front(name));
            }
            Err(e) => bail!(
                "{} leads to {}: {e}",
                path.display(),
                walk.path.join(name).display()
            ),
        }
    }
    Ok(match walk.links {
        0 => path.to_owned(),
        _ => walk.path,
    })
}

/// The names in `path`, `..` among them.
fn names(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    })
}

/// The directories from the root to where the walk is, each opened in the one before.
struct Walk {
    open: Vec<OwnedFd>,
    path: PathBuf,
    links: usize,
}

impl Walk {
    fn last(&self) -> &OwnedFd {
        // The root is never left.
        &self.open[self.open.len() - 1]
    }

    fn enter(&mut self, name: &OsString) -> Result<(), Errno> {
        let next = openat(self.last(), name.as_os_str(), OPEN, Mode::empty())?;
        self.open.push(next);
        self.path.push(name);
        Ok(())
    }

    fn leave(&mut self) {
        if self.open.len() > 1 {
            self.open.pop();
            self.path.pop();
        }
    }

    /// What the link `name` here says. The walk is at the root afterwards if that is an absolute path.
    fn link(&mut self, name: &OsString) -> Result<PathBuf> {
        let link = self.path.join(name);
        let read = |walk: &Self| match readlinkat(walk.last(), name.as_os_str()) {
            Ok(target) => Ok(PathBuf::from(target)),
            Err(Errno::EINVAL) => bail!("{} is not a directory", link.display()),
            Err(e) => bail!("read the link {}: {e}", link.display()),
        };
        // Whether it is a link at all.
        read(self)?;
        if self.links == 0 {
            for (depth, directory) in self.open.iter().enumerate() {
                let path: PathBuf = self.path.components().take(depth + 1).collect();
                check(directory, &path)?;
            }
        }
        self.links += 1;
        if self.links > MOST_LINKS {
            bail!("{}: more than {MOST_LINKS} symbolic links", link.display());
        }
        let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
        let stat = fstatat(self.last(), name.as_os_str(), flags)
            .with_context(|| format!("stat {}", link.display()))?;
        check_owner(&stat, &link)?;
        // From here on only root can change it.
        let target = read(self)?;
        if target.is_absolute() {
            self.open.truncate(1);
            self.path = PathBuf::from("/");
        }
        Ok(target)
    }

    /// After a link every directory is checked as it is entered; those before it when it is met.
    fn check_last(&self) -> Result<()> {
        match self.links {
            0 => Ok(()),
            _ => check(self.last(), &self.path),
        }
    }
}

fn check(directory: &OwnedFd, path: &Path) -> Result<()> {
    let stat = fstat(directory).with_context(|| format!("stat {}", path.display()))?;
    check_owner(&stat, path)?;
    if stat.st_mode & 0o022 != 0 {
        bail!(
            "{} is on the way through a symbolic link and can be written by others than root: give \
             kubelet the real path (--root-dir), or take the permission away",
            path.display()
        );
    }
    Ok(())
}

fn check_owner(stat: &FileStat, path: &Path) -> Result<()> {
    if stat.st_uid != 0 && stat.st_uid != nix::unistd::geteuid().as_raw() {
        bail!(
            "{} is on the way through a symbolic link and belongs to user {}, root is expected: give \
             kubelet the real path (--root-dir)",
            path.display(),
            stat.st_uid
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::resolve_in;
    use std::fs::{Permissions, create_dir_all, remove_file, set_permissions, write};
    use std::os::unix::fs::{PermissionsExt as _, lchown, symlink};
    use std::path::{Path, PathBuf};

    /// `/data/kubelet` as the administrator has moved it, with the link `at`, which says `target`.
    fn moved(links: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for directory in ["data/kubelet", "var/lib", "mnt"] {
            create_dir_all(root.path().join(directory)).unwrap();
        }
        for directory in ["data", "data/kubelet", "var", "var/lib", "mnt"] {
            set_permissions(root.path().join(directory), Permissions::from_mode(0o755)).unwrap();
        }
        for (at, target) in links {
            symlink(target, root.path().join(at)).unwrap();
        }
        root
    }

    const LINK: (&str, &str) = ("var/lib/kubelet", "/data/kubelet");

    fn resolved(root: &tempfile::TempDir, path: &str) -> Result<PathBuf, String> {
        resolve_in(root.path(), Path::new(path)).map_err(|e| format!("{e:#}"))
    }

    #[test]
    fn links_of_root_are_followed_at_every_place() {
        for (links, path) in [
            (&[][..], "/data/kubelet"),
            (&[LINK], "/var/lib/kubelet"),
            (
                &[("var/lib/kubelet", "../../data/kubelet")],
                "/var/lib/kubelet",
            ),
            (&[("mnt/data", "/data/")], "/mnt/data/kubelet"),
            (
                &[
                    LINK,
                    ("mnt/l", "../var/./lib"),
                    ("l", "mnt/l/kubelet/../kubelet"),
                ],
                "/l",
            ),
            (&[("up", "../../../data")], "/up/kubelet"),
        ] {
            let root = moved(links);
            let found = resolved(&root, path);
            assert_eq!(
                found.as_deref(),
                Ok(Path::new("/data/kubelet")),
                "{links:?}"
            );
        }
    }

    #[test]
    fn without_a_link_nothing_is_checked_and_nothing_has_to_be_there() {
        let root = moved(&[]);
        set_permissions(root.path().join("data"), Permissions::from_mode(0o777)).unwrap();
        for path in ["/data/kubelet", "/data/kubelet/none/x", "/none"] {
            assert_eq!(resolved(&root, path).as_deref(), Ok(Path::new(path)));
        }
    }

    #[test]
    fn a_directory_that_others_can_write_makes_a_link_worthless() {
        for directory in ["", "var", "var/lib", "data", "data/kubelet"] {
            for mode in [0o775, 0o757, 0o1777] {
                let root = moved(&[LINK]);
                set_permissions(root.path().join(directory), Permissions::from_mode(mode)).unwrap();
                let error = resolved(&root, "/var/lib/kubelet").unwrap_err();
                let expected =
                    format!("/{directory} is on the way through a symbolic link and can be");
                assert!(
                    error.starts_with(&expected),
                    "{directory} {mode:o}: {error}"
                );
            }
        }
    }

    #[test]
    fn links_and_directories_of_others_are_refused() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        for path in [
            "",
            "var",
            "var/lib",
            "var/lib/kubelet",
            "data",
            "data/kubelet",
        ] {
            let root = moved(&[LINK]);
            lchown(root.path().join(path), Some(1000), None).unwrap();
            let error = resolved(&root, "/var/lib/kubelet").unwrap_err();
            let expected =
                format!("/{path} is on the way through a symbolic link and belongs to user 1000");
            assert!(error.starts_with(&expected), "{path}: {error}");
        }
    }

    #[test]
    fn the_root_of_a_process_is_a_root() {
        let found = resolve_in(Path::new("/proc/self/root"), Path::new("/proc"));
        assert_eq!(found.unwrap(), Path::new("/proc"));
    }

    #[test]
    fn links_that_lead_nowhere_or_in_a_circle_are_refused() {
        let root = moved(&[
            ("circle", "circle"),
            ("gone", "/data/none"),
            ("proc", "data/file"),
            ("out", "../../../../etc"),
        ]);
        write(root.path().join("data/file"), "").unwrap();
        for (path, expected) in [
            ("/circle", "/circle: more than 40 symbolic links"),
            ("/gone", "/gone leads to /data/none: ENOENT"),
            ("/proc", "/data/file is not a directory"),
            ("/data/file", "/data/file is not a directory"),
            // Never above the root.
            ("/out", "/out leads to /etc: ENOENT"),
        ] {
            let error = resolved(&root, path).unwrap_err();
            assert!(error.starts_with(expected), "{path}: {error}");
        }
        remove_file(root.path().join("data/file")).unwrap();
    }
}
