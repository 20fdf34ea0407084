//! Files of `/etc` that the node replaces while ossfs runs: name servers, hosts, users and groups. A
//! bind mount of such a file would go on showing the old one. So ossfs has a directory of copies,
//! and links to them; the process that serves the volume keeps the copies current.

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use std::fs::{DirBuilder, File, Permissions};
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// The files, by their names in `/etc`.
pub(super) const NAMES: [&str; 4] = ["group", "hosts", "passwd", "resolv.conf"];
/// Largest file that is copied, in bytes; what is beyond is cut.
const LARGEST: u64 = 4 << 20;
/// Most changes of directories that are read at a time.
const MOST_READS: usize = 64;
/// How often to look whether a file has changed, in seconds, where nothing tells: other programs of
/// root's may have taken every inotify instance or watch of the node (`fs.inotify.max_user_instances`
/// is 128). A volume that is served with files of ten seconds ago is better than one that fails.
const LOOK_AGAIN: i64 = if cfg!(test) { 1 } else { 10 };

/// A directory with current copies.
pub struct LiveFiles {
    directory: PathBuf,
    etc: PathBuf,
    open: Open,
    changes: Changes,
    copies: Vec<Option<Vec<u8>>>,
}

/// What tells that a file may have changed.
enum Changes {
    Events(Inotify),
    /// It is time to look again.
    Timer(OwnedFd),
}

impl Changes {
    /// Events where the node has some left, else a timer.
    fn new(etc: &Path, open: Open) -> Result<Self> {
        let events = open().and_then(|inotify| {
            watch(&inotify, etc)?;
            Ok(inotify)
        });
        match events {
            Ok(inotify) => Ok(Self::Events(inotify)),
            Err(e) => {
                log::debug!("watch {}: {e}: polling instead", etc.display());
                timer().map(Self::Timer)
            }
        }
    }
}

/// Makes an inotify instance.
type Open = fn() -> Result<Inotify, Errno>;

fn open_inotify() -> Result<Inotify, Errno> {
    Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
}

/// A descriptor that becomes readable every `LOOK_AGAIN` seconds.
fn timer() -> Result<OwnedFd> {
    let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
    let timer = timerfd_create(TimerfdClockId::Monotonic, flags).context("make a timer")?;
    let period = Timespec {
        tv_sec: LOOK_AGAIN,
        tv_nsec: 0,
    };
    let every = Itimerspec {
        it_interval: period,
        it_value: period,
    };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &every).context("set a timer")?;
    Ok(timer)
}

impl LiveFiles {
    /// Makes `directory`, which everybody may read, fills it from `/etc`, and watches that.
    pub fn new(directory: &Path) -> Result<Self> {
        Self::of(Path::new("/etc"), directory, open_inotify)
    }

    fn of(etc: &Path, directory: &Path, open: Open) -> Result<Self> {
        let mut builder = DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o755)
            .create(directory)
            .and_then(|()| std::fs::set_permissions(directory, Permissions::from_mode(0o755)))
            .with_context(|| format!("make directory {}", directory.display()))?;
        let mut files = Self {
            directory: directory.to_owned(),
            etc: etc.to_owned(),
            changes: Changes::new(etc, open)?,
            open,
            copies: vec![None; NAMES.len()],
        };
        files.refresh();
        Ok(files)
    }

    /// Becomes readable when a file may have changed: then [`refresh`](Self::refresh).
    pub fn fd(&self) -> BorrowedFd<'_> {
        match &self.changes {
            Changes::Events(inotify) => inotify.as_fd(),
            Changes::Timer(timer) => timer.as_fd(),
        }
    }

    /// Copies what has changed. A file that cannot be read, or is away at this moment, keeps its last
    /// copy; one that cannot be written is logged.
    pub fn refresh(&mut self) {
        self.watch_on();
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

    /// Takes what has woken the caller: what changed is found by comparing. Where the files are now may
    /// be elsewhere than before, and what the node had none left of there may be again.
    fn watch_on(&mut self) {
        let still = match &self.changes {
            Changes::Events(inotify) => {
                for _ in 0..MOST_READS {
                    if inotify.read_events().is_err() {
                        break;
                    }
                }
                watch(inotify, &self.etc).is_ok()
            }
            Changes::Timer(timer) => {
                // Not expired, when another event has woken the caller.
                rustix::io::read(timer, &mut [0; 8]).is_err()
            }
        };
        if !still {
            match Changes::new(&self.etc, self.open) {
                Ok(changes) => self.changes = changes,
                Err(e) => log::warn!("watch {}: {e:#}", self.etc.display()),
            }
        }
    }
}

/// Watches the directories that the files of `etc` are in: of the names and, where those are links, of
/// what they lead to. Watching one twice changes nothing (inotify(7)). An error if the node has no
/// watch left.
fn watch(inotify: &Inotify, etc: &Path) -> Result<(), Errno> {
    let flags = AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_ONLYDIR;
    let targets = NAMES.map(|name| etc.join(name).canonicalize());
    let directories = targets.iter().flatten().filter_map(|path| path.parent());
    for directory in directories.chain([etc]) {
        // A directory that is gone again has no file to copy.
        if let Err(e @ (Errno::ENOSPC | Errno::ENOMEM)) = inotify.add_watch(directory, flags) {
            return Err(e);
        }
    }
    Ok(())
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
    use super::{Changes, LiveFiles, open_inotify};
    use nix::errno::Errno;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::fs::{read_to_string, rename, write};
    use std::os::unix::fs::symlink;

    fn wait(files: &LiveFiles) {
        let mut fds = [PollFd::new(files.fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::from(60_000_u16)), Ok(1));
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
        let mut files = LiveFiles::of(&etc, &live, open_inotify).unwrap();
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

    #[test]
    fn without_inotify_the_files_are_looked_at_again_and_again() {
        let directory = tempfile::tempdir().unwrap();
        let (etc, live) = (directory.path().join("etc"), directory.path().join("live"));
        std::fs::create_dir(&etc).unwrap();
        write(etc.join("hosts"), "1").unwrap();
        let mut files = LiveFiles::of(&etc, &live, || Err(Errno::EMFILE)).unwrap();
        assert_eq!(read_to_string(live.join("hosts")).unwrap(), "1");
        write(etc.join("hosts"), "2").unwrap();
        wait(&files);
        files.refresh();
        assert_eq!(read_to_string(live.join("hosts")).unwrap(), "2");
        // No longer readable: the caller waits for the next time.
        let mut fds = [PollFd::new(files.fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::ZERO), Ok(0));
        assert!(matches!(files.changes, Changes::Timer(_)));

        // The node has an instance again.
        files.open = open_inotify;
        wait(&files);
        files.refresh();
        assert!(matches!(files.changes, Changes::Events(_)));
    }
}
