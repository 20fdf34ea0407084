//! What is particular to each FUSE daemon that the driver can run: its name, its file system type,
//! its options, and how its output is read. Another daemon is one more descriptor here.

use crate::options::table::{self, Class, Kind};
use std::path::Path;

/// One FUSE daemon.
pub(crate) struct Descriptor {
    /// The program's name, also in `/proc/PID/comm`.
    pub(crate) name: &'static str,
    /// Its type in mountinfo: `fuse.` and the subtype that the daemon sets.
    fs_type: &'static str,
    options: &'static [(&'static str, Class, Kind)],
    pub(crate) output: OutputFormat,
}

/// How the reason of a failure is found in a daemon's output.
pub(crate) struct OutputFormat {
    /// Lines with one of these are no reason: progress of the daemon, and messages of systemd-run.
    pub(crate) noise: &'static [&'static str],
    /// What the daemon's logger puts before a message: `TIME LEVEL file.cpp:function(123): `.
    pub(crate) levels: &'static [&'static str],
    pub(crate) source_extension: &'static str,
    /// A part of a line in lower case, and what to do about it. The first that fits counts.
    pub(crate) hints: &'static [(&'static str, &'static str)],
}

/// ossfs 1.91, a fork of s3fs.
pub(crate) static OSSFS: Descriptor = Descriptor {
    name: "ossfs",
    fs_type: "fuse.ossfs",
    options: table::OPTIONS,
    output: S3FS_OUTPUT,
};

/// s3fs 1.90, the parent of ossfs, for other object stores. It has a part of ossfs's options.
static S3FS: Descriptor = Descriptor {
    name: "s3fs",
    fs_type: "fuse.s3fs",
    options: table::OPTIONS,
    output: S3FS_OUTPUT,
};

static ALL: [&Descriptor; 2] = [&OSSFS, &S3FS];

/// The names of all daemons.
pub(crate) static NAMES: [&str; 2] = [OSSFS.name, S3FS.name];

/// The types of their file systems.
pub(crate) static FS_TYPES: [&str; 2] = [OSSFS.fs_type, S3FS.fs_type];

impl Descriptor {
    /// The daemon that `program` is, by its file name; ossfs for any other name.
    pub(crate) fn of_program(program: &Path) -> &'static Self {
        let name = program.file_name();
        ALL.into_iter()
            .find(|daemon| name.is_some_and(|name| name == daemon.name))
            .unwrap_or(&OSSFS)
    }

    /// The daemon whose mounts have the type `fs_type`, if it is one of these.
    pub(crate) fn of_fs_type(fs_type: &str) -> Option<&'static Self> {
        ALL.into_iter().find(|daemon| daemon.fs_type == fs_type)
    }

    /// The row of the option `name`; `None` if neither the daemon nor libfuse has it.
    pub(crate) fn option(&self, name: &str) -> Option<(&'static str, Class, Kind)> {
        self.options
            .iter()
            .find(|(known, ..)| *known == name)
            .copied()
    }

    /// The names of the options that a volume may use, if only with permission.
    pub(crate) fn usable_options(&self) -> impl Iterator<Item = &'static str> {
        self.options
            .iter()
            .filter(|(_, class, _)| !matches!(class, Class::DriverOwned(_)))
            .map(|(name, ..)| *name)
    }
}

/// The output of s3fs and of its forks.
const S3FS_OUTPUT: OutputFormat = OutputFormat {
    noise: &NOISE,
    levels: &["[CRT] ", "[ERR] ", "[WAN] "],
    source_extension: ".cpp:",
    hints: HINTS,
};
const NOISE: [&str; 6] = [
    "[INF] ",
    "[DBG] ",
    "Running scope as unit",
    "Running as unit",
    "signature V1",
    "retry to connect by signature",
];
const HINTS: &[(&str, &str)] = &[
    (
        "invalid credentials",
        "check akId and akSecret, and what they may do in this bucket",
    ),
    (
        "invalidaccesskeyid",
        "the key id is not known to the store: check akId",
    ),
    (
        "signaturedoesnotmatch",
        "the secret does not fit the key id: check akSecret",
    ),
    (
        "accessdenied",
        "the key pair may not use this bucket: check its permissions",
    ),
    (
        "not found",
        "check bucket and url: a bucket lives at one endpoint",
    ),
    (
        "nosuchbucket",
        "check bucket and url: a bucket lives at one endpoint",
    ),
    (
        "unable to connect",
        "check the url, and that this node can reach it",
    ),
    (
        "could not connect",
        "check the url, and that this node can reach it",
    ),
    (
        "couldn't connect",
        "check the url, and that this node can reach it",
    ),
    (
        "connection refused",
        "check the url, and that this node can reach it",
    ),
    (
        "could not resolve",
        "check url: its host name is not known here",
    ),
    (
        "couldn't resolve",
        "check url: its host name is not known here",
    ),
    (
        "timed out",
        "check the url, and that this node can reach it",
    ),
    (
        "redirect",
        "the bucket lives at another endpoint: check url",
    ),
    (
        "device not found",
        "load the fuse module on this node: modprobe fuse",
    ),
    (
        "/dev/fuse",
        "load the fuse module on this node: modprobe fuse",
    ),
    (
        "unknown option",
        "this ossfs does not know the option: check otherOpts and its version",
    ),
    ("not exist", "check path: it must exist in the bucket"),
];

#[cfg(test)]
mod tests {
    use super::Descriptor;
    use std::path::Path;

    #[test]
    fn daemons_are_known_by_program_and_by_file_system_type() {
        for (program, name) in [
            ("/usr/local/bin/ossfs", "ossfs"),
            ("/usr/bin/s3fs", "s3fs"),
            ("/opt/ossfs/wrapper", "ossfs"),
            ("/", "ossfs"),
        ] {
            assert_eq!(Descriptor::of_program(Path::new(program)).name, name);
        }
        for (fs_type, name) in [
            ("fuse.ossfs", Some("ossfs")),
            ("fuse.s3fs", Some("s3fs")),
            ("fuse.sshfs", None),
            ("fuse", None),
            ("", None),
        ] {
            let found = Descriptor::of_fs_type(fs_type).map(|daemon| daemon.name);
            assert_eq!(found, name, "{fs_type}");
        }
    }
}
