//! The names and paths in the state directory. The driver writes there; the installer reads it, and
//! removes all of it in the end.
//!
//! ```text
//! <stateDir>/boot       which boot of the node the rest is of
//! <stateDir>/init.json  which build of the driver kubelet has loaded
//! <stateDir>/installer.json  until when `oss-installer run` is at work
//! <stateDir>/drain      while it is there, nothing is mounted: the driver is about to be removed
//! <stateDir>/locks/     a lock for each target that a call works on
//! <stateDir>/volumes/<id>/
//!     lock           held by the call that works on this volume
//!     volume.json    how ossfs is started for it
//!     serve.json     how `oss serve` serves it
//!     uid            the user on the node that its ossfs runs as
//!     passwd         its key pair, as ossfs reads it
//!     daemon         the process `oss serve` of it
//!     staging/       where it is mounted
//!     probed         when it was last seen to be served
//!     probing        held by the process of a probe
//!     unhealed       marker: it could not be healed the last time
//!     abandoned      since when no unmount call waits for the end of the uploads
//!     targets/<key>  the path of a TARGET that the volume is bound to
//! ```
//! What `oss serve` adds while it runs is named in `src/serve.rs`.
//!
//! A file that a call was killed in the middle of writing is left under the extension `new`.

use std::path::{Path, PathBuf};

/// The marker that keeps the driver from mounting.
pub const DRAIN: &str = "drain";
/// The boot of the node that everything else is of.
pub const BOOT: &str = "boot";
/// The record of the last `init`.
pub const INIT_RECORD: &str = "init.json";
/// What the installer that keeps the driver installed records of itself.
pub const INSTALLER_RECORD: &str = "installer.json";
/// The directory of the locks of targets.
pub const LOCKS: &str = "locks";
/// The directory of the volumes.
pub const VOLUMES: &str = "volumes";
/// The extension of a file that is not complete.
pub const INCOMPLETE: &str = "new";

/// The paths that belong to one volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeLayout(PathBuf);

impl VolumeLayout {
    /// The paths in `directory`, the volume's own.
    pub fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    /// The volume's own directory.
    pub fn directory(&self) -> &Path {
        &self.0
    }

    /// The file that a call has locked (flock(2)) while it works on the volume.
    pub fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    pub fn start(&self) -> PathBuf {
        self.0.join("volume.json")
    }

    pub fn plan(&self) -> PathBuf {
        self.0.join("serve.json")
    }

    pub fn uid(&self) -> PathBuf {
        self.0.join("uid")
    }

    pub fn passwd(&self) -> PathBuf {
        self.0.join("passwd")
    }

    pub fn daemon(&self) -> PathBuf {
        self.0.join("daemon")
    }

    pub fn staging(&self) -> PathBuf {
        self.0.join("staging")
    }

    pub fn scratch(&self) -> PathBuf {
        self.0.join("scratch")
    }

    /// The file that a probe has locked for as long as its process exists.
    pub fn probing(&self) -> PathBuf {
        self.0.join("probing")
    }

    /// The marker of a volume that could not be healed the last time.
    pub fn unhealed(&self) -> PathBuf {
        self.0.join("unhealed")
    }

    pub fn probed(&self) -> PathBuf {
        self.0.join("probed")
    }

    pub fn abandoned(&self) -> PathBuf {
        self.0.join("abandoned")
    }

    /// Files that builds before `oss serve` wrote, and this one only removes.
    pub fn of_builds_before(&self) -> [PathBuf; 2] {
        ["silent", "starts"].map(|name| self.0.join(name))
    }

    /// The directory of the volume's records of TARGETs: a file for each, whose content is the path.
    pub fn targets(&self) -> PathBuf {
        self.0.join("targets")
    }
}

/// Whether `name` is made as the names of volumes and of targets' files are: 32 hexadecimal digits.
pub fn is_id(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|b| b.is_ascii_hexdigit())
}
