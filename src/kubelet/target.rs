//! TARGET, the directory of one volume of one Pod:
//! `<kubelet root>/pods/<uid>/volumes/alicloud~oss/<volume>`. Only TARGET tells whose volume a
//! call is about; nothing in the options JSON is trusted for that.

use super::DRIVER_DIRECTORY;
use crate::text::{hex, is_normal_path};
use sha2::{Digest as _, Sha256};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// A target path: absolute, without `.` and `..`, printable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    path: String,
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
        })
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
            && name(pod.parent()?)? == "pods";
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
