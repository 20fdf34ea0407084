//! Which of ossfs's options are applied by the driver. `oss serve` mounts the volume itself, so what
//! libfuse 2 would hand to mount(2) (`lib/mount.c`: `fuse_mount_opts`, `mount_flags`) is ours to
//! apply; ossfs gets the options all the same and can do nothing with them.

use crate::descriptor::OSSFS;
use crate::options::table::Class;
use crate::serve::plan::MountOptions;

/// Who applies an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AppliedBy {
    /// The driver, with mount(2).
    Driver,
    /// ossfs, or the libfuse in it.
    Ossfs,
    /// Nobody: no volume may have it.
    Nobody,
}

/// Who applies the option `name` of the class `class`.
pub(crate) fn applied_by(name: &str, class: Class) -> AppliedBy {
    match (name, class) {
        // The driver sets them for every volume.
        ("allow_other" | "nosuid" | "nodev" | "ro" | "rw", _) => AppliedBy::Driver,
        (_, Class::DriverOwned(_)) => AppliedBy::Nobody,
        // nosuid and nodev always hold; allow_other includes root; there is no block device.
        ("suid" | "dev" | "allow_root" | "blkdev" | "blksize", _) => AppliedBy::Nobody,
        (
            "default_permissions"
            | "max_read"
            | "exec"
            | "noexec"
            | "async"
            | "sync"
            | "dirsync"
            | "atime"
            | "noatime",
            _,
        ) => AppliedBy::Driver,
        // The node configuration labels all volumes.
        ("context" | "fscontext" | "defcontext" | "rootcontext", _) => AppliedBy::Nobody,
        _ => AppliedBy::Ossfs,
    }
}

/// The part of ossfs's `arguments` that mount(2) gets. The last of two equal options wins, as in
/// libfuse.
pub(crate) fn mount_options(arguments: &[String], read_only: bool) -> MountOptions {
    let mut mount = MountOptions {
        read_only,
        ..MountOptions::default()
    };
    let options = arguments
        .windows(2)
        .filter(|pair| pair[0] == "-o")
        .map(|pair| pair[1].as_str());
    for option in options {
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (option, None),
        };
        let row = OSSFS.option(name);
        if row.is_none_or(|(name, class, _)| applied_by(name, class) != AppliedBy::Driver) {
            continue;
        }
        match (name, value) {
            ("ro", _) => mount.read_only = true,
            ("default_permissions", _) => mount.default_permissions = true,
            ("max_read", Some(bytes)) => mount.max_read = bytes.parse().ok(),
            ("noexec", _) => mount.noexec = true,
            ("exec", _) => mount.noexec = false,
            ("noatime", _) => mount.noatime = true,
            ("atime", _) => mount.noatime = false,
            ("sync", _) => mount.sync = true,
            ("async", _) => mount.sync = false,
            ("dirsync", _) => mount.dirsync = true,
            _ => {}
        }
    }
    mount
}

#[cfg(test)]
mod tests {
    use super::{AppliedBy, applied_by, mount_options};
    use crate::options::table::{Class, OPTIONS};

    #[test]
    fn every_option_is_applied_by_somebody_or_refused() {
        let count = |who| {
            let rows = OPTIONS.iter();
            rows.filter(|(name, class, _)| applied_by(name, *class) == who)
                .count()
        };
        assert_eq!(
            count(AppliedBy::Driver) + count(AppliedBy::Ossfs) + count(AppliedBy::Nobody),
            182
        );
        for (name, class, _) in OPTIONS {
            let is_owned = matches!(class, Class::DriverOwned(_));
            let who = applied_by(name, *class);
            assert!(
                !is_owned || who != AppliedBy::Ossfs,
                "{name} is refused, and ossfs would apply it"
            );
        }
    }

    #[test]
    fn what_belongs_to_the_kernel_is_found_in_the_arguments() {
        let mount = |options: &[&str]| {
            let mut arguments = vec!["docker".to_owned(), "/staging".to_owned()];
            for option in options {
                arguments.extend(["-o".to_owned(), (*option).to_owned()]);
            }
            mount_options(&arguments, false)
        };
        assert_eq!(mount(&["uid=1", "allow_other"]), Default::default());
        let found = mount(&["max_read=4096", "noexec", "default_permissions", "sync"]);
        assert_eq!(found.max_read, Some(4096));
        assert!(found.noexec && found.default_permissions && found.sync && !found.read_only);
        assert!(!mount(&["noexec", "exec"]).noexec);
        assert!(mount(&["ro"]).read_only && mount_options(&[], true).read_only);
        let labelled = mount(&["context=system_u:object_r:container_file_t:s0"]);
        assert!(labelled.labels.is_empty());
    }
}
