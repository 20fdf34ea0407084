//! Paths of the host from where the installer runs. Under another root a link with an absolute path
//! would lead into the installer's own root, so links are followed here, step by step.

mod exec;
pub(crate) mod files;
pub(crate) mod program;
pub(crate) mod stage;

use std::ffi::OsString;
use std::io::{Error, ErrorKind, Result};
use std::path::{Component, Path, PathBuf};

/// As many links as the kernel follows (path_resolution(7)).
const MAX_LINKS: usize = 40;
/// The largest file of the host that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// A root directory in which paths are resolved: the host's, or that of one of its processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    root: PathBuf,
}

impl Host {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The path here of the host's `path`, with no link left in it. What does not exist stays as
    /// it is written.
    pub(crate) fn locate(&self, path: &Path) -> Result<PathBuf> {
        let mut rest = parts(path);
        let mut walked: Vec<OsString> = Vec::new();
        let mut links = 0;
        while let Some(part) = rest.pop() {
            if part == ".." {
                walked.pop();
                continue;
            }
            walked.push(part);
            match std::fs::read_link(self.join(&walked)) {
                Ok(_) if links == MAX_LINKS => {
                    let text = format!("{}: too many symbolic links", path.display());
                    return Err(Error::new(ErrorKind::InvalidInput, text));
                }
                Ok(target) => {
                    links += 1;
                    walked.pop();
                    if target.is_absolute() {
                        walked.clear();
                    }
                    rest.extend(parts(&target));
                }
                // EINVAL: not a link.
                Err(e) if matches!(e.kind(), ErrorKind::InvalidInput | ErrorKind::NotFound) => {}
                Err(e) if e.kind() == ErrorKind::NotADirectory => {}
                Err(e) => return Err(e),
            }
        }
        Ok(self.join(&walked))
    }

    fn join(&self, parts: &[OsString]) -> PathBuf {
        parts
            .iter()
            .fold(self.root.clone(), |path, part| path.join(part))
    }

    /// The text of the host's file at `path`; an error if that is longer than a mebibyte.
    pub(crate) fn read(&self, path: &Path) -> Result<String> {
        use std::io::Read as _;
        let file = std::fs::File::open(self.locate(path)?)?;
        if !file.metadata()?.is_file() {
            return Err(Error::other("it is not a file"));
        }
        let mut text = String::new();
        if file.take(MAX_BYTES + 1).read_to_string(&mut text)? as u64 > MAX_BYTES {
            return Err(Error::other("it is larger than 1 MiB"));
        }
        Ok(text)
    }

    /// The state of what the host has at `path`, links followed.
    pub(crate) fn metadata(&self, path: &Path) -> Result<std::fs::Metadata> {
        std::fs::metadata(self.locate(path)?)
    }

    /// Whether the host was started by systemd (sd_booted(3)).
    pub(crate) fn runs_systemd(&self) -> bool {
        self.metadata(Path::new("/run/systemd/system"))
            .is_ok_and(|meta| meta.is_dir())
    }
}

/// `text` with paths as the host sees them: those that begin with `root`, where the host's root is seen
/// from here, or with `/proc/PID/root`, begin where that ends.
pub(crate) fn as_host_sees(text: &str, root: Option<&Path>) -> String {
    let root = root.and_then(Path::to_str).filter(|root| *root != "/");
    let mut seen = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('/') {
        let (before, path) = rest.split_at(at);
        seen.push_str(before);
        // A path begins after something else than a path.
        let begins = !seen.ends_with(|c: char| c.is_alphanumeric() || "._~-/".contains(c));
        let inner = path
            .strip_prefix(root.unwrap_or("\0"))
            .or_else(|| in_root(path));
        rest = match inner.filter(|inner| begins && inner.starts_with('/')) {
            Some(inner) => inner,
            None => path,
        };
        seen.push('/');
        rest = &rest[1..];
    }
    seen + rest
}

/// What follows `/proc/PID/root` at the beginning of `path`.
fn in_root(path: &str) -> Option<&str> {
    let (pid, rest) = path.strip_prefix("/proc/")?.split_once('/')?;
    pid.bytes().all(|b| b.is_ascii_digit()).then_some(())?;
    rest.strip_prefix("root")
}

/// The names in `path`, the last one first; `..` is one of them.
fn parts(path: &Path) -> Vec<OsString> {
    path.components()
        .rev()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Host, as_host_sees};
    use std::os::unix::fs::symlink;
    use std::path::Path;

    #[test]
    fn paths_are_named_as_the_host_has_them() {
        for (text, root, expected) in [
            (
                "stat /proc/1/root/etc/x: open \"/proc/812/root/run/y\"",
                None,
                "stat /etc/x: open \"/run/y\"",
            ),
            ("(/tmp/host/plugins)", Some("/tmp/host"), "(/plugins)"),
            // A root by itself, and what only looks like one.
            (
                "--host-root=/proc/1/root is",
                None,
                "--host-root=/proc/1/root is",
            ),
            (
                "/tmp/hosts/a /a/proc/1/root/b",
                Some("/tmp/host"),
                "/tmp/hosts/a /a/proc/1/root/b",
            ),
            (
                "/proc/self/root/a /proc/1/ns/pid",
                None,
                "/proc/self/root/a /proc/1/ns/pid",
            ),
            ("/etc/x", Some("/"), "/etc/x"),
            ("no path", None, "no path"),
        ] {
            assert_eq!(as_host_sees(text, root.map(Path::new)), expected, "{text}");
        }
    }

    #[test]
    fn links_stay_in_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::create_dir_all(root.join("usr/lib")).unwrap();
        std::fs::create_dir(root.join("etc")).unwrap();
        std::fs::write(root.join("usr/lib/os-release"), "ID=x\n").unwrap();
        symlink("../usr/lib/os-release", root.join("etc/os-release")).unwrap();
        symlink("/usr", root.join("absolute")).unwrap();
        symlink("../../../../usr", root.join("up")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let host = Host::new(root);
        for (path, expected) in [
            ("/etc/os-release", "usr/lib/os-release"),
            ("/absolute/lib/./os-release", "usr/lib/os-release"),
            ("/up/lib", "usr/lib"),
            ("/etc/../etc/missing/x", "etc/missing/x"),
            ("/../../usr", "usr"),
        ] {
            assert_eq!(
                host.locate(Path::new(path)).unwrap(),
                root.join(expected),
                "{path}"
            );
        }
        assert_eq!(host.read(Path::new("/etc/os-release")).unwrap(), "ID=x\n");
        assert!(host.locate(Path::new("/loop")).is_err());
        assert!(host.read(Path::new("/usr")).is_err());
        std::fs::write(root.join("long"), vec![b'x'; (1 << 20) + 1]).unwrap();
        assert!(host.read(Path::new("/long")).is_err());
    }
}
