//! Files of `/etc` that the node replaces while ossfs runs: name servers, hosts, users and groups. A
//! bind mount of such a file would go on showing the old one. So ossfs has a directory of copies,
//! and links to them; the process that serves the volume keeps the copies current.

use anyhow::{Context as _, Result};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::fs::{DirBuilder, File, Permissions};
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// The files, by their names in `/etc`.
pub(super) const NAMES: [&str; 4] = ["group", "hosts", "passwd", "resolv.conf"];
/// Largest file that is copied, in bytes; what is beyond is cut.
const LARGEST: u64 = 4 << 20;
/// Most changes of directories that are read at a time.
const MOST_READS: usize = 64;

/// A directory with current copies.
pub struct LiveFiles {
    directory: PathBuf,
    etc: PathBuf,
    inotify: Inotify,
    copies: Vec<Option<Vec<u8>>>,
}

impl LiveFiles {
    /// Makes `directory`, which everybody may read, fills it from `/etc`, and watches that.
    pub fn new(directory: &Path) -> Result<Self> {
        Self::of(Path::new("/etc"), directory)
    }

    fn of(etc: &Path, directory: &Path) -> Result<Self> {
        let mut builder = DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o755)
            .create(directory)
            .and_then(|()| std::fs::set_permissions(directory, Permissions::from_mode(0o755)))
            .with_context(|| format!("make directory {}", directory.display()))?;
        let flags = InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK;
        let mut files = Self {
            directory: directory.to_owned(),
            etc: etc.to_owned(),
            inotify: Inotify::init(flags).context("make an inotify descriptor")?,
            copies: vec![None; NAMES.len()],
        };
        files.refresh();
        Ok(files)
    }

    /// Becomes readable when a file may have changed: then [`refresh`](Self::refresh).
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }

    /// Copies what has changed. A file that cannot be read, or is away at this moment, keeps its last
    /// copy; one that cannot be written is logged.
    pub fn refresh(&mut self) {
        // What changed is found by comparing; the events only wake the caller.
        for _ in 0..MOST_READS {
            if self.inotify.read_events().is_err() {
                break;
            }
        }
        self.watch();
        for (name, copy) in NAMES.iter().zip(&mut self.copies) {
            let Some(content) = read(&self.etc.join(name)) else {
                continue;
            };
            if copy.as_ref() == Some(&content) {
                continue;
            }
            match replace(&self.directory.join(name), &content) {
                Ok(()) => *copy = Some(content),
                Err(e) => log::warn!("copy {}: {e}", self.etc.join(name).display()),
            }
        }
    }

    /// Watches the directories that the files are in: of the names and, where those are links, of what
    /// they lead to. Watching one twice changes nothing (inotify(7)).
    fn watch(&self) {
        let flags = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_ONLYDIR;
        let targets = NAMES.map(|name| self.etc.join(name).canonicalize());
        let directories = targets.iter().flatten().filter_map(|path| path.parent());
        for directory in directories.chain([self.etc.as_path()]) {
            // Without it the copy is current at the next refresh.
            let _ = self.inotify.add_watch(directory, flags);
        }
    }
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)
        .ok()?
        .take(LARGEST)
        .read_to_end(&mut content)
        .ok()?;
    Some(content)
}

/// Complete or as it was, at any moment.
fn replace(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, content)?;
    std::fs::set_permissions(&new, Permissions::from_mode(0o644))?;
    std::fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::LiveFiles;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::fs::{read_to_string, rename, write};
    use std::os::unix::fs::symlink;

    fn wait(files: &LiveFiles) {
        let mut fds = [PollFd::new(files.fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::from(10_000_u16)), Ok(1));
    }

    #[test]
    fn copies_follow_files_that_are_replaced_and_links_that_are() {
        let directory = tempfile::tempdir().unwrap();
        let (etc, run, live) = (
            directory.path().join("etc"),
            directory.path().join("run"),
            directory.path().join("live"),
        );
        std::fs::create_dir(&etc).unwrap();
        std::fs::create_dir(&run).unwrap();
        write(etc.join("hosts"), "1").unwrap();
        write(run.join("stub"), "a").unwrap();
        symlink(run.join("stub"), etc.join("resolv.conf")).unwrap();
        let mut files = LiveFiles::of(&etc, &live).unwrap();
        assert_eq!(read_to_string(live.join("hosts")).unwrap(), "1");
        assert_eq!(read_to_string(live.join("resolv.conf")).unwrap(), "a");
        assert!(!live.join("passwd").exists());

        write(etc.join("hosts.new"), "2").unwrap();
        rename(etc.join("hosts.new"), etc.join("hosts")).unwrap();
        wait(&files);
        files.refresh();
        assert_eq!(read_to_string(live.join("hosts")).unwrap(), "2");

        write(run.join("new"), "b").unwrap();
        rename(run.join("new"), run.join("stub")).unwrap();
        wait(&files);
        files.refresh();
        assert_eq!(read_to_string(live.join("resolv.conf")).unwrap(), "b");

        std::fs::remove_file(etc.join("resolv.conf")).unwrap();
        files.refresh();
        assert_eq!(read_to_string(live.join("resolv.conf")).unwrap(), "b");
    }
}
