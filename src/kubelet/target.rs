//! TARGET, the directory of one volume of one Pod:
//! `<kubelet root>/pods/<uid>/volumes/alicloud~oss/<volume>`. Only TARGET tells whose volume a
//! call is about; nothing in the options JSON is trusted for that.

use super::DRIVER_DIRECTORY;
use crate::text::{hex, is_normal_path};
use sha2::{Digest as _, Sha256};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// The directory of all Pods in kubelet's root directory.
const PODS: &str = "pods";

/// A target path: absolute, without `.` and `..`, printable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    path: String,
    /// As kubelet has it, where that is another path to the same directory.
    given: Option<String>,
}

impl Target {
    /// The TARGET in `text`; one slash may end it. An error is a text for kubelet's user: it is not
    /// UTF-8, not absolute, longer than a path can be, or has `.`, `..` or control characters.
    pub fn parse(text: &OsStr) -> Result<Self, String> {
        let Some(path) = text.to_str() else {
            return Err(format!("TARGET {text:?} is not UTF-8"));
        };
        if path.len() > 4095 {
            return Err("TARGET is longer than a path can be".to_owned());
        }
        let path = path.strip_suffix('/').unwrap_or(path);
        if !is_normal_path(path) || matches!(path, "" | "/") || path.chars().any(char::is_control) {
            return Err(format!(
                "TARGET {path:?} is not an absolute path without \".\", \"..\" and control characters"
            ));
        }
        Ok(Self {
            path: path.to_owned(),
            given: None,
        })
    }

    /// kubelet's root directory in the path, and what is below it, `pods/…`; `None` where the path is
    /// not laid out as kubelet does it, or where the root might be below another one's Pods.
    pub(crate) fn root_and_rest(&self) -> Option<(&Path, &Path)> {
        let (pod, _, _) = self.parts()?;
        let root = pod.parent()?.parent()?;
        let rest = self.path().strip_prefix(root).ok()?;
        (!root.iter().any(|name| name == PODS)).then_some((root, rest))
    }

    /// This target by the path that it has below `root`, which is another path to kubelet's root
    /// directory. An error as of `parse`.
    pub(crate) fn at_root(self, root: &Path) -> Result<Self, String> {
        let Some((_, rest)) = self.root_and_rest() else {
            return Ok(self);
        };
        let real = Self::parse(root.join(rest).as_os_str())?;
        Ok(Self {
            given: (real.path != self.path).then_some(self.path),
            ..real
        })
    }

    /// Every path by which kubelet, or the driver before this one, may have named it.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        [self.path.as_str()]
            .into_iter()
            .chain(self.given.as_deref())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.path
    }

    pub(crate) fn path(&self) -> &Path {
        Path::new(&self.path)
    }

    /// Pod directory and Pod UID, volume name; `None` where the path is not laid out as kubelet
    /// does it.
    fn parts(&self) -> Option<(&Path, &str, &str)> {
        let name = |path: &Path| path.file_name().and_then(OsStr::to_str).map(str::to_owned);
        let driver = self.path().parent()?;
        let volumes = driver.parent()?;
        let pod = volumes.parent()?;
        let laid_out = name(driver)? == DRIVER_DIRECTORY
            && name(volumes)? == "volumes"
            && name(pod.parent()?)? == PODS;
        let uid = pod.file_name()?.to_str()?;
        let volume = self.path().file_name()?.to_str()?;
        laid_out.then_some((pod, uid, volume))
    }

    /// Pod UID and volume name; `None` where the path is not laid out as kubelet does it.
    pub fn pod_and_volume(&self) -> Option<(&str, &str)> {
        self.parts().map(|(_, uid, volume)| (uid, volume))
    }

    /// The UID of the Pod, for the log.
    pub(crate) fn pod_uid(&self) -> &str {
        self.parts().map_or("-", |(_, uid, _)| uid)
    }

    /// The name of the volume in the Pod (or of the PV), for the log.
    pub(crate) fn volume(&self) -> &str {
        self.parts().map_or("-", |(_, _, volume)| volume)
    }

    /// Where kubelet binds subPaths of this volume: `<pod dir>/volume-subpaths/<volume>`
    /// (`pkg/volume/util/subpath`).
    pub(crate) fn subpaths(&self) -> Option<PathBuf> {
        let (pod, _, volume) = self.parts()?;
        Some(pod.join("volume-subpaths").join(volume))
    }

    /// A file name that is unique to this target.
    pub(crate) fn key(&self) -> String {
        hex(&Sha256::digest(self.path.as_bytes()))[..32].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::Target;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    use std::path::Path;

    fn target(text: &str) -> Result<Target, String> {
        Target::parse(OsStr::new(text))
    }

    #[test]
    fn pod_and_volume_are_read_from_the_path() {
        let target = target("/var/lib/kubelet/pods/aa7a-2990/volumes/alicloud~oss/grep").unwrap();
        assert_eq!((target.pod_uid(), target.volume()), ("aa7a-2990", "grep"));
        assert_eq!(
            target.subpaths().as_deref(),
            Some(Path::new(
                "/var/lib/kubelet/pods/aa7a-2990/volume-subpaths/grep"
            ))
        );
    }

    #[test]
    fn a_target_has_the_real_path_of_kubelets_root() {
        let given = "/var/lib/kubelet/pods/u/volumes/alicloud~oss/v";
        let real = "/data/kubelet/pods/u/volumes/alicloud~oss/v";
        let moved = target(given)
            .unwrap()
            .at_root(Path::new("/data/kubelet"))
            .unwrap();
        assert_eq!(moved.as_str(), real);
        assert_eq!(moved.names().collect::<Vec<_>>(), [real, given]);
        assert_eq!(moved.key(), target(real).unwrap().key());
        let same = target(real).unwrap();
        let root = same.root_and_rest().unwrap().0.to_owned();
        assert_eq!(root, Path::new("/data/kubelet"));
        assert_eq!(same.clone().at_root(&root), Ok(same));
        for text in [
            "/mnt",
            "/k/pods/u/volumes/other~driver/v",
            "/k/pods/u/x/pods/u/volumes/alicloud~oss/v",
        ] {
            let target = target(text).unwrap();
            assert_eq!(target.root_and_rest(), None, "{text}");
            assert_eq!(target.clone().at_root(Path::new("/d")), Ok(target));
        }
    }

    #[test]
    fn other_layouts_have_no_pod() {
        for text in [
            "/mnt",
            "/a/pods/u/volumes/other~driver/v",
            "/pods/u/volumes/alicloud~oss",
            "/a/pod/u/volumes/alicloud~oss/v",
        ] {
            let target = target(text).unwrap();
            assert_eq!((target.pod_uid(), target.volume()), ("-", "-"), "{text}");
            assert_eq!((target.subpaths(), target.pod_and_volume()), (None, None));
        }
    }

    #[test]
    fn refuses_paths_that_are_not_normal() {
        for text in [
            "",
            "/",
            "//",
            "a",
            "./a",
            "/a/../b",
            "/a/./b",
            "/a//b",
            "/a/..",
            "/a\nb",
            "/a\0b",
            "--help",
            "-o",
            &format!("/{}", "a".repeat(4095)),
        ] {
            assert!(target(text).is_err(), "{text:?}");
        }
        assert!(Target::parse(OsStr::from_bytes(b"/a\xff")).is_err());
        assert_eq!(target("/a/b/").unwrap().as_str(), "/a/b");
    }

    #[test]
    fn the_key_differs_for_targets_that_begin_alike() {
        assert_ne!(
            target("/p/oss1").unwrap().key(),
            target("/p/oss10").unwrap().key()
        );
        assert_eq!(target("/p/oss1").unwrap().key().len(), 32);
    }
}
