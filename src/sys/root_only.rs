//! Files and directories that only root may see: made with exact modes, never through a link, and
//! refused if another user has made or changed them.

use anyhow::{Context as _, Result, bail};
use nix::fcntl::OFlag;
use std::fs::{DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::Path;

/// The mode of every directory here.
const DIRECTORY_MODE: u32 = 0o700;
/// The mode of every file here.
const FILE_MODE: u32 = 0o600;
/// The largest file read back, in bytes; the driver's own are far smaller.
const MAX_BYTES: u64 = 1 << 20;

/// The largest file that `read_trusted` reads, in bytes.
const MAX_TRUSTED_BYTES: u64 = 256 * 1024;

/// Makes the directory at `path` if it is missing (its parent must exist). One that is there
/// already must be as this would have made it.
pub fn make_directory(path: &Path) -> Result<()> {
    match DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
        // The umask may have taken bits away.
        Ok(()) => std::fs::set_permissions(path, Permissions::from_mode(DIRECTORY_MODE))
            .with_context(|| format!("set the mode of {}", path.display())),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => check_directory(path),
        Err(e) => Err(e).with_context(|| format!("make directory {}", path.display())),
    }
}

/// Makes the directories above `path` that are missing, open to all for reading.
pub(crate) fn make_parents(path: &Path) -> Result<()> {
    let Some(parent) = path.parent() else {
        return Ok(());
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(parent)
        .with_context(|| format!("make directory {}", parent.display()))
}

/// An error if `path` is not a directory of this user with mode 0700.
pub fn check_directory(path: &Path) -> Result<()> {
    let meta =
        std::fs::symlink_metadata(path).with_context(|| format!("stat {}", path.display()))?;
    if !meta.is_dir() {
        bail!("{} is not a directory: remove it", path.display());
    }
    check_owner_and_mode(path, &meta, DIRECTORY_MODE)
}

/// Makes the file at `path` with `content`, replacing one of an earlier call. The file is complete
/// or absent, whenever the call is killed.
pub fn write(path: &Path, content: &[u8]) -> Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(meta) => check_regular(path, &meta)?,
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(e).with_context(|| format!("stat {}", path.display())),
    }
    let temporary = path.with_extension("new");
    // Left by a call that was killed; unlinking follows no link.
    remove(&temporary)?;
    let mut file = create(&temporary)?;
    file.write_all(content)
        .with_context(|| format!("write {}", temporary.display()))?;
    std::fs::rename(&temporary, path).with_context(|| format!("write {}", path.display()))
}

/// Makes a new, empty file.
fn create(path: &Path) -> Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(path)
        .with_context(|| format!("create {}", path.display()))?;
    file.set_permissions(Permissions::from_mode(FILE_MODE))
        .with_context(|| format!("set the mode of {}", path.display()))?;
    Ok(file)
}

/// Opens the file at `path`, made if it is missing.
pub fn open(path: &Path) -> Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(path)
        .with_context(|| format!("open {}", path.display()))?;
    check_file(path, &file)?;
    Ok(file)
}

/// The text of the file at `path`, or `None` if there is none.
pub fn read(path: &Path) -> Result<Option<String>> {
    let Some(file) = open_for_reading(path)? else {
        return Ok(None);
    };
    let mut text = String::new();
    file.take(MAX_BYTES)
        .read_to_string(&mut text)
        .with_context(|| format!("read {}", path.display()))?;
    Ok(Some(text))
}

fn open_for_reading(path: &Path) -> Result<Option<File>> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(path);
    match file {
        Ok(file) => {
            check_file(path, &file)?;
            Ok(Some(file))
        }
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| format!("open {}", path.display())),
    }
}

/// The text of the file at `path`, which root alone can have written: the configuration, or the
/// node's keys. It may be reached through a link of root's, as in a mounted ConfigMap. An error, too,
/// if it is a device or has more than 256 KiB.
pub fn read_trusted(path: &Path) -> std::io::Result<String> {
    let (file, meta) = open_trusted(path)?;
    if meta.len() > MAX_TRUSTED_BYTES {
        let problem = format!("it has more than {MAX_TRUSTED_BYTES} bytes");
        return Err(std::io::Error::other(problem));
    }
    let mut text = String::new();
    file.take(MAX_TRUSTED_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

/// What the file system knows about the file at `path`, which root alone can have written.
pub(crate) fn check_trusted(path: &Path) -> std::io::Result<Metadata> {
    open_trusted(path).map(|(_, meta)| meta)
}

fn open_trusted(path: &Path) -> std::io::Result<(File, Metadata)> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)?;
    let meta = file.metadata()?;
    let own = nix::unistd::geteuid().as_raw();
    let problem = if !meta.is_file() {
        "it is not a file".to_owned()
    } else if meta.uid() != own && meta.uid() != 0 {
        format!("it belongs to user {}, root is expected", meta.uid())
    } else if meta.mode() & 0o002 != 0 {
        "it is world-writable".to_owned()
    } else if meta.mode() & 0o020 != 0 {
        "it is group-writable".to_owned()
    } else {
        return Ok((file, meta));
    };
    Err(std::io::Error::other(problem))
}

/// Removes the file at `path`, if it is there.
pub fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            Err(e).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Removes the empty directory at `path`, if it is there.
pub fn remove_directory(path: &Path) -> Result<()> {
    match std::fs::remove_dir(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            Err(e).with_context(|| format!("remove directory {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn check_file(path: &Path, file: &File) -> Result<()> {
    let meta = file
        .metadata()
        .with_context(|| format!("stat {}", path.display()))?;
    check_regular(path, &meta)
}

fn check_regular(path: &Path, meta: &Metadata) -> Result<()> {
    if !meta.is_file() || meta.nlink() > 1 {
        bail!(
            "{} is not a regular file with one link: remove it",
            path.display()
        );
    }
    check_owner_and_mode(path, meta, FILE_MODE)
}

fn check_owner_and_mode(path: &Path, meta: &Metadata, mode: u32) -> Result<()> {
    let own = nix::unistd::geteuid().as_raw();
    if meta.uid() != own {
        bail!(
            "{} belongs to user {}: {own} is expected",
            path.display(),
            meta.uid()
        );
    }
    let found = meta.mode() & 0o7777;
    if found != mode {
        bail!(
            "{} has mode {found:04o}: {mode:04o} is expected",
            path.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{create, make_directory, open, read, write};
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn writes_files_that_only_the_owner_reads() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some("two"));
        assert_eq!(
            path.metadata().unwrap().permissions().mode() & 0o7777,
            0o600
        );
        assert_eq!(read(&dir.path().join("b")).unwrap(), None);
        assert!(create(&path).is_err());
    }

    #[test]
    fn refuses_planted_links_and_wrong_modes() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("canary"), "x").unwrap();
        symlink(at("canary"), at("link")).unwrap();
        symlink(dir.path(), at("dir-link")).unwrap();
        std::fs::set_permissions(at("canary"), Permissions::from_mode(0o644)).unwrap();
        assert!(open(&at("link")).is_err());
        assert!(read(&at("link")).is_err());
        assert!(create(&at("link")).is_err());
        assert!(make_directory(&at("dir-link")).is_err());
        assert!(make_directory(&at("canary")).is_err());
        let error = read(&at("canary")).unwrap_err().to_string();
        assert!(
            error.ends_with("canary has mode 0644: 0600 is expected"),
            "{error}"
        );
        assert!(write(&at("link"), b"own").is_err());
        assert_eq!(std::fs::read_to_string(at("canary")).unwrap(), "x");
        std::fs::create_dir(at("open")).unwrap();
        std::fs::set_permissions(at("open"), Permissions::from_mode(0o755)).unwrap();
        let error = make_directory(&at("open")).unwrap_err().to_string();
        assert!(
            error.ends_with("open has mode 0755: 0700 is expected"),
            "{error}"
        );
    }

    #[test]
    fn refuses_hard_links() {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("a"), b"x").unwrap();
        std::fs::hard_link(dir.path().join("a"), dir.path().join("b")).unwrap();
        assert!(read(&dir.path().join("b")).is_err());
    }
}
