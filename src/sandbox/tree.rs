//! A root file system that is being put together: a small tmpfs, and what is bound into it.

use anyhow::{Context as _, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::unistd::{Gid, Uid, fchown};
use std::fs::{DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};

/// What entering a root directory tells about it.
pub(super) struct Found {
    /// ossfs, by the path that it has there.
    pub(super) program: PathBuf,
    /// The directory where libfuse finds its `fusermount`.
    pub(super) stub: PathBuf,
}

/// `None` for the arguments of mount(2) that are not used.
pub(super) const UNUSED: Option<&Path> = None;

/// The daemon's own directory, on a disk of the node. What is needed at a path below it is made there.
pub(super) const TEMPORARY: &str = "/tmp";

/// Whether a path is to be a directory or a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
}

/// A tmpfs and the file systems bound below it. Paths are those that processes inside will use.
pub(super) struct Tree {
    root: PathBuf,
    device: u64,
}

impl Tree {
    /// Mounts the tmpfs at the empty directory `root`, in this process's mount namespace.
    pub(super) fn mount(root: &Path, options: &str) -> Result<Self> {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("oss"), root, Some("tmpfs"), flags, Some(options))
            .with_context(|| format!("mount a tmpfs at {}", root.display()))?;
        let device = std::fs::metadata(root)
            .with_context(|| format!("stat {}", root.display()))?
            .dev();
        Ok(Self {
            root: root.to_owned(),
            device,
        })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Where `path` is for now.
    pub(super) fn place(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Has `path` exist, with its parents; what this makes in the tmpfs belongs to root. Nothing is
    /// made in a directory of the node's other than [`TEMPORARY`]: there `path` must exist.
    pub(super) fn make(&self, path: &Path, kind: Kind) -> Result<PathBuf> {
        let mut place = self.root.clone();
        let mut components = path.components().peekable();
        while let Some(component) = components.next() {
            let name = match component {
                Component::Normal(name) => name,
                Component::RootDir | Component::CurDir => continue,
                _ => bail!("{} is not an absolute path without \"..\"", path.display()),
            };
            let parent = place.clone();
            place.push(name);
            let kind = match components.peek() {
                Some(_) => Kind::Directory,
                None => kind,
            };
            if place.starts_with(self.place(Path::new(TEMPORARY))) && is_link(&place) {
                // The daemon before this one may have left it there.
                bail!("{} has a link in it", path.display());
            }
            if !exists(&place) {
                self.make_one(&parent, &place, kind)
                    .with_context(|| format!("make {} in the sandbox", path.display()))?;
            }
        }
        Ok(place)
    }

    fn make_one(&self, parent: &Path, place: &Path, kind: Kind) -> Result<()> {
        let ours = std::fs::metadata(parent)?.dev() == self.device
            || parent.starts_with(self.place(Path::new(TEMPORARY)));
        if !ours {
            bail!("its parent is a directory of the node, where nothing is made");
        }
        match kind {
            Kind::Directory => DirBuilder::new().mode(0o755).create(place)?,
            Kind::File => drop(create(place, 0o444)?),
        }
        // Whatever the umask is.
        let mode = if kind == Kind::File { 0o444 } else { 0o755 };
        chmod(place, mode)
    }

    /// Whether `path` is in the tmpfs itself.
    pub(super) fn is_own(&self, path: &Path) -> bool {
        std::fs::metadata(self.place(path)).is_ok_and(|meta| meta.dev() == self.device)
    }

    /// A symbolic link at `path`, which must not exist.
    pub(super) fn link(&self, path: &Path, target: &Path) -> Result<()> {
        if let Some(parent) = path.parent() {
            self.make(parent, Kind::Directory)?;
        }
        symlink(target, self.place(path)).with_context(|| format!("link {}", path.display()))
    }

    /// Binds the file or directory `source` of the node, without what is mounted below it, to `path`.
    pub(super) fn bind(&self, source: &Path, path: &Path, flags: MsFlags) -> Result<()> {
        let what = || format!("bind {} into the sandbox", source.display());
        let kind = match std::fs::metadata(source).with_context(what)?.is_dir() {
            true => Kind::Directory,
            false => Kind::File,
        };
        let place = self.make(path, kind)?;
        bind(source, &place, flags).with_context(what)
    }

    /// A new file of `uid`'s at `path` in the tmpfs that only it may read.
    pub(super) fn write(&self, path: &Path, content: &[u8], uid: u32, mode: u32) -> Result<()> {
        if let Some(parent) = path.parent() {
            self.make(parent, Kind::Directory)?;
        }
        let place = self.place(path);
        let what = || format!("write {} in the sandbox", path.display());
        let mut file = create(&place, mode).with_context(what)?;
        file.write_all(content).with_context(what)?;
        // The mode first: for a file of another user it would need CAP_FOWNER.
        chmod(&place, mode).with_context(what)?;
        fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(uid))).with_context(what)
    }
}

/// Binds `source` over `place`, both of which exist. The flags of a bind mount are set by a second
/// call (mount(2)).
pub(super) fn bind(source: &Path, place: &Path, flags: MsFlags) -> Result<()> {
    mount(Some(source), place, UNUSED, MsFlags::MS_BIND, UNUSED)?;
    if !flags.is_empty() {
        let flags = flags | MsFlags::MS_BIND | MsFlags::MS_REMOUNT;
        mount(UNUSED, place, UNUSED, flags, UNUSED)?;
    }
    Ok(())
}

/// Whether anything is at `path`, a dangling link included.
fn exists(path: &Path) -> bool {
    !matches!(std::fs::symlink_metadata(path), Err(e) if e.kind() == ErrorKind::NotFound)
}

fn is_link(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink())
}

fn create(path: &Path, mode: u32) -> std::io::Result<std::fs::File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(mode).open(path)
}

fn chmod(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(())
}
