//! What is wanted of a sandbox, and how what ran in it ended.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// `argv[0]` of the process that builds a sandbox and becomes, or watches, ossfs.
pub(super) const BUILDER: &str = "oss-sandbox";

/// How ossfs is to run.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// ossfs, by an absolute path.
    pub program: PathBuf,
    /// Its arguments after its name; `-f` must be one of them.
    pub arguments: Vec<String>,
    /// The mount point that is one of the arguments. ossfs checks that it is an empty directory:
    /// inside there is one.
    pub mount_point: PathBuf,
    /// The uid that ossfs has outside its user namespace; its gid is the same number.
    pub uid: u32,
    /// An empty directory; it stays empty for every other process.
    pub root: PathBuf,
    /// A directory that `uid` owns: `/tmp` inside, for data that is not uploaded yet.
    pub temporary: PathBuf,
    /// The key file, at most 64 KiB: ossfs finds a copy that belongs to it at the same path.
    pub key_file: Option<PathBuf>,
    /// What else ossfs can reach, at the same paths.
    pub reachable: Vec<Reachable>,
    /// What its environment has besides what it always has (`PATH`, `HOME`, `TZ`).
    pub environment: BTreeMap<String, String>,
    /// The directory of `LiveFiles`.
    pub live_files: PathBuf,
    /// The control groups that it is to be in, by their files `cgroup.procs`; a service manager's own
    /// need not be named.
    pub groups: Vec<PathBuf>,
    /// Whether ossfs is confined.
    pub mode: Mode,
    /// The program to run as `oss-sandbox`: `/proc/self/exe` where this program serves a volume.
    pub helper: PathBuf,
}

/// A file or directory of the node that ossfs can reach.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reachable {
    /// An absolute path that exists.
    pub path: PathBuf,
    /// Whether ossfs may write there; the permissions of the files hold as well.
    pub writable: bool,
}

/// How far ossfs is confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// As far as this node can.
    Full,
    /// Not at all: root in the node's file system, without the right to mount. For finding faults.
    Off,
}

/// How ossfs ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum End {
    /// By itself, with this status.
    Exited(i32),
    /// By a signal of this number.
    Killed(i32),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "exited with status {status}"),
            Self::Killed(signal) => write!(f, "was ended by signal {signal}"),
        }
    }
}
