//! Removing directory trees that another user has made: however deep they are, with a bounded number
//! of open files and a bounded stack.

use rustix::fs::{AtFlags, Dir, Mode, OFlags, open, openat, renameat, unlinkat};
use rustix::io::Errno;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

/// Directories that are gone into from one another; what is deeper is moved to the top first. Each
/// takes two descriptors.
const DEEPEST: u32 = 32;
const FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Removes all that is in the directory at `path`, and leaves it. Symbolic links are removed and not
/// followed. Nothing else may make files in it meanwhile. After an error a part is left.
pub(crate) fn empty(path: &Path) -> io::Result<()> {
    let top = open(path, FLAGS, Mode::empty())?;
    let mut moved = 0;
    loop {
        let before = moved;
        clear(top.as_fd(), &top, 0, &mut moved)?;
        if moved == before {
            return Ok(());
        }
    }
}

fn clear(top: BorrowedFd<'_>, directory: &OwnedFd, depth: u32, moved: &mut u64) -> io::Result<()> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if [c".", c".."].contains(&name) {
            continue;
        }
        match unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => continue,
            // POSIX has EPERM for a directory.
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(e) => return Err(e.into()),
        }
        if depth == DEEPEST {
            move_up(top, directory, name, moved)?;
            continue;
        }
        let child = openat(directory, name, FLAGS, Mode::empty())?;
        clear(top, &child, depth + 1, moved)?;
        unlinkat(directory, name, AtFlags::REMOVEDIR)?;
    }
    Ok(())
}

/// Moves a directory to the top, under a name that nothing there has.
fn move_up(
    top: BorrowedFd<'_>,
    directory: &OwnedFd,
    name: &CStr,
    moved: &mut u64,
) -> io::Result<()> {
    loop {
        *moved += 1;
        match renameat(directory, name, top, format!("moved-{moved}")) {
            Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
            result => return Ok(result?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{FLAGS, empty};
    use rustix::fs::{Mode, mkdirat, open, openat};

    #[test]
    fn a_tree_of_any_depth_goes_and_links_are_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (top, other) = (directory.path().join("top"), directory.path().join("other"));
        std::fs::create_dir(&top).unwrap();
        std::fs::create_dir(&other).unwrap();
        std::fs::write(other.join("kept"), "").unwrap();
        let mut at = open(&top, FLAGS, Mode::empty()).unwrap();
        // More than a process has descriptors as a rule, and longer than a path can be.
        for _ in 0..5000 {
            mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = openat(&at, "d", FLAGS, Mode::empty()).unwrap();
        }
        std::fs::write(top.join("moved-1"), "").unwrap();
        std::fs::create_dir_all(top.join("moved-2/in")).unwrap();
        std::os::unix::fs::symlink(&other, top.join("link")).unwrap();
        empty(&top).unwrap();
        assert_eq!(std::fs::read_dir(&top).unwrap().count(), 0);
        assert!(other.join("kept").exists());
        std::os::unix::fs::symlink(&other, top.join("link")).unwrap();
        assert!(empty(&top.join("link")).is_err());
    }
}
