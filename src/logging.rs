//! The driver's log: one file for all calls, appended to line by line, rotated by size. If it
//! cannot be written, calls work all the same; nothing is ever logged to kubelet's pipe.

use crate::config::LogLevel;
use crate::text::log_line;
use env_logger::{Builder, Target};
use log::LevelFilter;
use nix::fcntl::{Flock, FlockArg, OFlag};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// The size from which a log is rotated, in bytes.
const MAX_BYTES: u64 = 10 * 1024 * 1024;
/// How long a process writes to the file that it has open before it looks whether that is still the log.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How many rotated logs are kept (`.1` is the youngest).
const KEPT: u32 = 4;

/// Logs to the file at `path` from here on, and panics with it. Without such a file, to nothing.
pub(crate) fn start(path: &Path, level: LogLevel) {
    let level = match level {
        LogLevel::Off => LevelFilter::Off,
        LogLevel::Error => LevelFilter::Error,
        LogLevel::Warn => LevelFilter::Warn,
        LogLevel::Info => LevelFilter::Info,
        LogLevel::Debug => LevelFilter::Debug,
    };
    let pid = std::process::id();
    let opened = open(path);
    let readable = opened.as_ref().ok().and_then(readable_by_others);
    let target: Box<dyn Write + Send> = match opened {
        Ok(file) => Box::new(Log::new(path, file)),
        Err(_) => Box::new(io::sink()),
    };
    let started = Builder::new()
        .filter_level(level)
        .target(Target::Pipe(target))
        .format(move |out, record| {
            // One write a record, and one line: lines of calls that run at once do not mix.
            let line = log_line(&record.args().to_string());
            let time = humantime::format_rfc3339_millis(SystemTime::now());
            out.write_all(format!("{time} {:5} {pid} {line}\n", record.level()).as_bytes())
        })
        .try_init();
    if started.is_ok() && readable.is_some() {
        log::warn!(
            "the log {} is readable by others: mode 0640 is expected",
            path.display()
        );
    }
}

/// Panics go to the log and nowhere else: stderr is kubelet's.
pub fn catch_panics() {
    std::panic::set_hook(Box::new(|panic| log::error!("{panic}")));
}

/// The log of a process that may live for long: another may have rotated it, and its own lines may have
/// made it large.
struct Log {
    path: PathBuf,
    file: File,
    looked: Instant,
}

impl Log {
    fn new(path: &Path, file: File) -> Self {
        Self {
            path: path.to_owned(),
            file,
            looked: Instant::now(),
        }
    }

    /// Opens the log again if it is another file now, or is to be rotated.
    fn look(&mut self) -> io::Result<()> {
        let (own, found) = (self.file.metadata()?, std::fs::symlink_metadata(&self.path));
        let is_current =
            found.is_ok_and(|found| (found.dev(), found.ino()) == (own.dev(), own.ino()));
        if !is_current || own.len() >= MAX_BYTES {
            self.file = open(&self.path)?;
        }
        Ok(())
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.looked.elapsed() >= LOOK_AGAIN {
            self.looked = Instant::now();
            // Without another file the lines go where they went.
            let _ = self.look();
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The log at `path`, open for appending, after rotating a large one.
fn open(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(directory)?;
    }
    let file = append(path)?;
    if file.metadata()?.len() < MAX_BYTES {
        return Ok(file);
    }
    rotate(path, file)
}

fn append(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(path)?;
    let meta = file.metadata()?;
    match meta.is_file() && meta.nlink() == 1 && meta.uid() == nix::unistd::geteuid().as_raw() {
        true => Ok(file),
        false => Err(io::Error::other(
            "the log is not a regular file of this user with one link",
        )),
    }
}

/// Rotates `large`, the log at `path`, and opens a new one. Calls that run at once do it once:
/// who gets the lock checks that the log is still the same file. A call that still has the old file
/// open goes on writing to it.
fn rotate(path: &Path, large: File) -> io::Result<File> {
    let Ok(locked) = Flock::lock(large, FlockArg::LockExclusiveNonblock) else {
        return append(path);
    };
    let (held, found) = (locked.metadata()?, std::fs::symlink_metadata(path)?);
    if (held.dev(), held.ino()) == (found.dev(), found.ino()) {
        for age in (1..KEPT).rev() {
            // The first rotations find none to move.
            let _ = std::fs::rename(rotated(path, age), rotated(path, age + 1));
        }
        std::fs::rename(path, rotated(path, 1))?;
    }
    append(path)
}

fn rotated(path: &Path, age: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{age}"));
    name.into()
}

fn readable_by_others(file: &File) -> Option<u32> {
    let mode = file.metadata().ok()?.mode();
    (mode & 0o007 != 0).then_some(mode)
}

#[cfg(test)]
mod tests {
    use super::{KEPT, LOOK_AGAIN, Log, MAX_BYTES, open, rotated};
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_large_log_is_rotated_once_by_calls_that_run_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/log");
        writeln!(open(&path).unwrap(), "first").unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o640);
        open(&path).unwrap().set_len(MAX_BYTES).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| writeln!(open(&path).unwrap(), "line").unwrap());
            }
        });
        assert!(rotated(&path, 1).metadata().unwrap().len() >= MAX_BYTES);
        assert!(!rotated(&path, 2).exists());
        assert!(path.metadata().map_or(0, |meta| meta.len()) < MAX_BYTES);
    }

    #[test]
    fn a_process_that_lives_for_long_follows_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Log::new(&path, open(&path).unwrap());
        let write = |log: &mut Log, line: &str| {
            log.looked = log.looked.checked_sub(LOOK_AGAIN).unwrap();
            writeln!(log, "{line}").unwrap();
        };
        write(&mut log, "one");
        // Rotated by another process, and then by this one.
        std::fs::rename(&path, rotated(&path, 1)).unwrap();
        write(&mut log, "two");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n");
        open(&path).unwrap().set_len(MAX_BYTES).unwrap();
        write(&mut log, "three");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
    }

    #[test]
    fn the_number_of_logs_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        for _ in 0..KEPT + 3 {
            open(&path).unwrap().set_len(MAX_BYTES).unwrap();
        }
        open(&path).unwrap();
        assert_eq!(dir.path().read_dir().unwrap().count() as u32, KEPT + 1);
    }
}
