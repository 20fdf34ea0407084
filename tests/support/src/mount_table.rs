//! The mount table as tests read it (proc_pid_mountinfo(5)), apart from the driver's own reading.

use std::path::Path;

/// The table of the thread that reads it.
pub const OWN_TABLE: &str = "/proc/thread-self/mountinfo";

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The device number, as `MAJOR:MINOR`.
    pub device: String,
    /// The directory of the file system that is mounted.
    pub root: String,
    pub point: String,
    pub options: String,
    /// The type of the file system.
    pub kind: String,
    pub source: String,
    pub super_options: String,
}

impl Mount {
    /// The mount of a line, if it is one.
    pub fn parse(line: &str) -> Option<Self> {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(2).map(str::to_owned);
        let mut file_system = file_system.split(' ').map(str::to_owned);
        Some(Self {
            device: mount.next()?,
            root: mount.next()?,
            point: mount.next()?,
            options: mount.next()?,
            kind: file_system.next()?,
            source: file_system.next()?,
            super_options: file_system.next()?,
        })
    }

    /// The mounts in the table at `path`, the oldest first; none if its process has ended.
    pub fn table(path: impl AsRef<Path>) -> Vec<Self> {
        let table = std::fs::read_to_string(path).unwrap_or_default();
        table.lines().filter_map(Self::parse).collect()
    }

    /// Whether it is at `path`.
    pub fn is_at(&self, path: &Path) -> bool {
        Path::new(&self.point) == path
    }
}
