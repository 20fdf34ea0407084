//! The volumes of this driver that are mounted on the node, from the host's mount table
//! (proc_pid_mountinfo(5)).

use crate::host::Host;
use alicloud_oss::kubelet::target::Target;
use alicloud_oss::mounts::reader::Reader;
use alicloud_oss::mounts::table::Mount;
use alicloud_oss::text::list;
use anyhow::{Context as _, Result};
use nix::poll::PollFlags;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Seek as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};

/// A mounted volume: `<kubelet root>/pods/<uid>/volumes/alicloud~oss/<name>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Volume {
    pub(crate) pod_uid: String,
    pub(crate) name: String,
}

/// The mount tables of the host and of its kubelets, which may be in other mount namespaces. poll(2)
/// reports each change of a table as POLLPRI (proc_pid_mounts(5)).
pub(crate) struct MountTables(Vec<File>);

impl MountTables {
    /// The tables of the first process of `proc`, and of its processes `kubelets`.
    pub(crate) fn open(proc: &Path, kubelets: &[u32]) -> Result<Self> {
        let mut tables = Vec::new();
        for pid in std::iter::once(&1).chain(kubelets) {
            let path = proc.join(format!("{pid}/mountinfo"));
            match File::open(&path) {
                Ok(table) => tables.push(table),
                // A kubelet that has exited meanwhile.
                Err(e) if e.kind() == ErrorKind::NotFound && *pid != 1 => {}
                Err(e) => {
                    return Err(e).with_context(|| format!("open mount table {}", path.display()));
                }
            }
        }
        Ok(Self(tables))
    }

    /// The volumes of this driver that are mounted now, each once.
    pub(crate) fn volumes(&mut self) -> Result<Vec<Volume>> {
        self.find(|mount| volume(&mount))
    }

    /// The mount points below the directory `path` of the host, each once.
    pub(crate) fn below(&mut self, path: &Path) -> Result<Vec<PathBuf>> {
        let is_below = |point: &PathBuf| point != path && point.starts_with(path);
        self.find(|mount| Some(mount.mount_point).filter(is_below))
    }

    /// What `wanted` makes of the mounts of all tables, each once. What it does not want is not kept:
    /// a table may be long.
    fn find<T: Ord>(&mut self, wanted: impl Fn(Mount) -> Option<T>) -> Result<Vec<T>> {
        let (mut reader, mut found) = (Reader::default(), BTreeSet::new());
        for table in &mut self.0 {
            table
                .rewind()
                .map_err(anyhow::Error::from)
                .and_then(|()| reader.mounts(table, |mount| found.extend(wanted(mount))))
                .context("read the host's mount table")?;
        }
        Ok(found.into_iter().collect())
    }

    pub(crate) fn sources(&self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        let tables = self.0.iter();
        tables.map(|t| (t.as_fd(), PollFlags::POLLPRI)).collect()
    }
}

/// The volume that `mount` is, if it is one.
fn volume(mount: &Mount) -> Option<Volume> {
    volume_at(&mount.mount_point).filter(|_| mount.is_ossfs())
}

/// The volume whose TARGET is `path`, if it is one.
pub(crate) fn volume_at(path: &Path) -> Option<Volume> {
    let target = Target::parse(path.as_os_str()).ok()?;
    let (pod_uid, name) = target.pod_and_volume()?;
    Some(Volume {
        pod_uid: pod_uid.to_owned(),
        name: name.to_owned(),
    })
}

/// The text for `volumes`: each with its Pod's namespace and name, where kubelet's log directory
/// `/var/log/pods/NAMESPACE_NAME_UID` has them.
pub(crate) fn describe(volumes: &[Volume], host: &Host) -> String {
    let names: Vec<String> = host
        .locate(Path::new("/var/log/pods"))
        .and_then(std::fs::read_dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let texts: Vec<String> = volumes
        .iter()
        .map(|volume| {
            let pod = names
                .iter()
                .find_map(|name| pod_name(name, &volume.pod_uid));
            let pod = pod.unwrap_or_else(|| format!("with uid {}", volume.pod_uid));
            format!("volume {:?} of Pod {pod}", volume.name)
        })
        .collect();
    list(&texts, ", ")
}

/// `NAMESPACE/NAME` of the Pod with `uid`, if `directory` is that of its logs.
fn pod_name(directory: &str, uid: &str) -> Option<String> {
    let (namespace, name) = directory
        .strip_suffix(uid)?
        .strip_suffix('_')?
        .split_once('_')?;
    Some(format!("{namespace}/{name}"))
}

#[cfg(test)]
mod tests {
    use super::{MountTables, Volume, describe, pod_name};
    use crate::host::Host;
    use std::path::Path;

    #[test]
    fn only_mounts_of_ossfs_at_the_path_of_a_volume_count() {
        let table = "\
27 1 254:0 / / rw - ext4 /dev/vda rw
90 27 0:50 / /var/lib/kubelet/pods/a/volumes/alicloud~oss/v1 rw shared:1 - fuse.ossfs ossfs rw
91 27 0:50 / /var/lib/kubelet/pods/a/volumes/alicloud~oss/v1 rw - fuse.ossfs ossfs rw
92 27 0:51 / /data/k0s/pods/b/volumes/alicloud~oss/v2 rw - fuse.s3fs s3fs rw
93 27 0:52 / /var/lib/kubelet/pods/c/volumes/alicloud~oss/v rw - tmpfs none rw
94 27 0:53 / /var/lib/kubelet/pods/c/volumes/other~oss/v rw - fuse.ossfs ossfs rw
95 27 0:54 / /var/lib/kubelet/pods/c/volumes/alicloud~oss/v/deeper rw - fuse.ossfs ossfs rw
96 27 0:55 / /run/alicloud-oss/volumes/x/staging rw - fuse.ossfs ossfs rw
97 27 0:56 / /var/lib/kubelet/pods/d/volumes/alicloud~oss/v rw - fuse.sshfs host:/ rw
98 27 0:57 / /srv/my\\040kubelet/pods/e/volumes/alicloud~oss/v3 rw - fuse.ossfs ossfs rw
garbage";
        let volume = |pod: &str, name: &str| Volume {
            pod_uid: pod.to_owned(),
            name: name.to_owned(),
        };
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("1")).unwrap();
        std::fs::write(dir.path().join("1/mountinfo"), table).unwrap();
        assert_eq!(
            MountTables::open(dir.path(), &[])
                .unwrap()
                .volumes()
                .unwrap(),
            [volume("a", "v1"), volume("b", "v2"), volume("e", "v3")]
        );
    }

    #[test]
    fn mounts_of_several_tables_are_named_once() {
        let dir = tempfile::tempdir().unwrap();
        let line = |id, path| format!("{id} 1 0:50 / {path} rw - fuse.ossfs ossfs rw\n");
        for (pid, text) in [
            (
                "1",
                line(5, "/run/o/volumes") + &line(6, "/run/o/volumes/b/staging"),
            ),
            (
                "7",
                line(5, "/run/o/volumes/a/staging") + &line(6, "/run/o/volumes/b/staging"),
            ),
        ] {
            std::fs::create_dir(dir.path().join(pid)).unwrap();
            std::fs::write(dir.path().join(pid).join("mountinfo"), text).unwrap();
        }
        // Process 8 has exited.
        let mut tables = MountTables::open(dir.path(), &[7, 8]).unwrap();
        assert_eq!(
            tables.below(Path::new("/run/o/volumes")).unwrap(),
            [
                Path::new("/run/o/volumes/a/staging"),
                Path::new("/run/o/volumes/b/staging")
            ]
        );
    }

    #[test]
    fn pods_have_names_where_their_logs_are() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("var/log/pods/shop_web-0_uid-1")).unwrap();
        let volume = |pod: &str| Volume {
            pod_uid: pod.to_owned(),
            name: "v".to_owned(),
        };
        assert_eq!(
            describe(&[volume("uid-1"), volume("uid-2")], &Host::new(dir.path())),
            "volume \"v\" of Pod shop/web-0, volume \"v\" of Pod with uid uid-2"
        );
        assert_eq!(pod_name("a_b_c", "x"), None);
    }
}
