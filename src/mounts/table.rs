//! The mount table of this mount namespace, from the text of `/proc/self/mountinfo`
//! (proc_pid_mountinfo(5)) to answers. Reading it costs time for each mount of the node, so calls
//! read it only where a single directory is not enough.

use crate::descriptor::FS_TYPES;
pub use crate::mounts::line::Mount;
use crate::mounts::line::parse;
use crate::mounts::reader::Reader;
use anyhow::{Context as _, Result};
use std::fs::File;
use std::path::Path;

/// The file system types for which `Mount::is_ossfs` holds.
pub fn ossfs_types() -> &'static [&'static str] {
    &FS_TYPES
}

/// The mounts in the order in which the kernel lists them.
pub struct MountTable(Vec<Mount>);

impl MountTable {
    /// The table of this process's mount namespace. An error if it has more mounts than any node needs.
    pub fn read() -> Result<Self> {
        let path = "/proc/self/mountinfo";
        let mut mounts = Vec::new();
        File::open(path)
            .map_err(anyhow::Error::from)
            .and_then(|table| Reader::default().mounts(table, |mount| mounts.push(mount)))
            .with_context(|| format!("read {path}"))?;
        Ok(Self(mounts))
    }

    /// The mounts in `mountinfo`. A line that is not as the manual describes is left out.
    pub fn parse(mountinfo: &str) -> Self {
        Self(mountinfo.lines().filter_map(parse).collect())
    }

    /// The mount that is visible at `path`, if one is mounted right there. It is found as the kernel
    /// resolves a path, from the root on: a mount may have the same path and be hidden, as the ones
    /// that mount propagation makes below a directory that is bound on itself.
    pub fn top(&self, path: &Path) -> Option<&Mount> {
        // A mount's parent is on the way, too, or not in this table.
        let mut on_the_way: Vec<&Mount> = self
            .0
            .iter()
            .filter(|m| path.starts_with(&m.mount_point))
            .collect();
        // The first one met on the way is the one with the shortest path.
        on_the_way.sort_by_key(|m| m.mount_point.as_os_str().len());
        let is_on = |m: &Mount, below: &Mount| m.parent == below.id && m.id != below.id;
        let mut top = *on_the_way
            .iter()
            .find(|m| !on_the_way.iter().any(|below| is_on(m, below)))?;
        while let Some(next) = on_the_way.iter().find(|m| is_on(m, top)) {
            top = next;
        }
        Some(top).filter(|m| m.mount_point == path)
    }

    /// The mounts at `path` from the bottom to the top.
    pub fn layers(&self, path: &Path) -> Vec<&Mount> {
        let mut layers: Vec<&Mount> = self.top(path).into_iter().collect();
        while let Some(below) = layers
            .last()
            .and_then(|upper| self.parent(upper))
            .filter(|m| m.mount_point == path)
        {
            layers.push(below);
        }
        layers.reverse();
        layers
    }

    /// The mount that `mount` is mounted on, if that is in this table.
    pub fn parent(&self, mount: &Mount) -> Option<&Mount> {
        self.0
            .iter()
            .find(|m| m.id == mount.parent && m.id != mount.id)
    }

    /// Every mount, in the order in which the kernel lists them.
    pub fn iter(&self) -> impl Iterator<Item = &Mount> {
        self.0.iter()
    }

    /// The mount points below `directory`, itself apart, deepest and latest first: the order in
    /// which they can be unmounted.
    pub fn below(&self, directory: &Path) -> Vec<&Path> {
        let mut points: Vec<&Path> = self
            .0
            .iter()
            .map(|m| m.mount_point.as_path())
            .filter(|point| *point != directory && point.starts_with(directory))
            .collect();
        points.reverse();
        points.sort_by_key(|point| std::cmp::Reverse(point.components().count()));
        points.dedup();
        points
    }
}

#[cfg(test)]
mod tests {
    use super::{MountTable, ossfs_types};
    use std::path::Path;

    const TABLE: &str = "\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
90 27 0:50 / /pods/a/volumes/alicloud~oss/oss1 rw,nosuid,nodev - fuse.ossfs ossfs rw,user_id=0
91 27 0:51 / /pods/a/volumes/alicloud~oss/oss10 rw shared:7 master:2 - fuse.s3fs s3fs rw
93 90 0:52 /dir /pods/a/volumes/alicloud~oss/oss1 ro - tmpfs none rw
94 27 0:53 / /pods/a/volume-subpaths/oss1/main/0 rw - fuse.ossfs ossfs rw
95 94 0:53 / /pods/a/volume-subpaths/oss1/main/0/x rw - fuse.ossfs ossfs rw
96 27 0:53 / /pods/a/volume-subpaths/oss10/main/0 rw - fuse.ossfs ossfs rw
97 27 0:54 / /mnt/with\\040blank\\134 rw - tmpfs a\\040b rw
not a mount
98 x 0:54 / /y rw - tmpfs a rw
99 27 0:54";

    #[test]
    fn the_top_of_a_stack_is_what_nothing_is_mounted_on() {
        let table = MountTable::parse(TABLE);
        let top = table
            .top(Path::new("/pods/a/volumes/alicloud~oss/oss1"))
            .unwrap();
        assert_eq!(
            (top.id, top.fs_type.as_str(), top.root.to_str()),
            (93, "tmpfs", Some("/dir"))
        );
        let other = table
            .top(Path::new("/pods/a/volumes/alicloud~oss/oss10"))
            .unwrap();
        assert!(other.is_ossfs());
        assert_eq!(
            (other.device.as_str(), other.source.as_str()),
            ("0:51", "s3fs")
        );
        assert_eq!(table.top(Path::new("/pods")), None);
        let groups = (other.shared, other.master);
        assert_eq!(groups, (Some(7), Some(2)));
        let layers = table.layers(Path::new("/pods/a/volumes/alicloud~oss/oss1"));
        assert_eq!(layers.iter().map(|m| m.id).collect::<Vec<_>>(), [90, 93]);
        assert_eq!(layers[0].options, "rw,nosuid,nodev");
    }

    #[test]
    fn the_file_systems_of_ossfs_are_those_of_its_types() {
        for (fs_type, expected) in ossfs_types().iter().map(|fs_type| (*fs_type, true)).chain([
            ("fuse", false),
            ("fuse.sshfs", false),
            ("ext4", false),
        ]) {
            let line = format!("9 1 0:50 / /m rw - {fs_type} x rw");
            let table = MountTable::parse(&line);
            let found = table.top(Path::new("/m")).unwrap().is_ossfs();
            assert_eq!(found, expected, "{fs_type}");
        }
        assert!(ossfs_types().contains(&"fuse.ossfs"));
    }

    #[test]
    fn escapes_are_decoded() {
        let table = MountTable::parse(TABLE);
        assert_eq!(
            table.top(Path::new("/mnt/with blank\\")).unwrap().source,
            "a b"
        );
    }

    #[test]
    fn mounts_below_come_deepest_first_and_only_of_that_directory() {
        let table = MountTable::parse(TABLE);
        assert_eq!(
            table.below(Path::new("/pods/a/volume-subpaths/oss1")),
            [
                Path::new("/pods/a/volume-subpaths/oss1/main/0/x"),
                Path::new("/pods/a/volume-subpaths/oss1/main/0")
            ]
        );
        assert_eq!(
            table.below(Path::new("/pods/a/volume-subpaths/oss")),
            [] as [&Path; 0]
        );
    }

    #[test]
    fn a_hidden_mount_of_the_same_path_is_not_the_visible_one() {
        let table = MountTable::parse(
            "1 0 8:1 / / rw shared:1 - ext4 /dev/sda rw\n\
             2 1 8:1 /k /k rw shared:1 - ext4 /dev/sda rw\n\
             3 2 0:50 / /k/v rw shared:2 - fuse.ossfs ossfs rw\n\
             4 1 0:50 / /k/v rw shared:2 - fuse.ossfs ossfs rw\n\
             5 3 0:60 / /k/v rw shared:3 - fuse.ossfs ossfs rw\n\
             6 4 0:60 / /k/v rw shared:3 - fuse.ossfs ossfs rw\n",
        );
        let layers = table.layers(Path::new("/k/v"));
        assert_eq!(layers.iter().map(|m| m.id).collect::<Vec<_>>(), [3, 5]);
        assert_eq!(table.top(Path::new("/k")).map(|m| m.id), Some(2));
        assert_eq!(table.top(Path::new("/k/w")), None);
    }
}
