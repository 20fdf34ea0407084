//! The root file system of a confined ossfs: what it needs, and nothing else of the node.

use super::spec::Spec;
use super::tree::{Found, Kind, TEMPORARY, Tree, UNUSED, bind};
use super::{live_files, stub};
use crate::mounts::table::MountTable;
use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, chown, chroot};
use rustix::process::pivot_root;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Programs and libraries, as directories or, where the node has them so, as links into `/usr`.
const SYSTEM: [&str; 7] = [
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32",
];
/// File systems that answer without a server or a daemon.
const LOCAL: [&str; 9] = [
    "bcachefs", "btrfs", "erofs", "ext3", "ext4", "overlay", "squashfs", "tmpfs", "xfs",
];
/// The most file systems that are bound below one of `SYSTEM`.
const MOST_MOUNTS: usize = 32;
/// What libraries read: the dynamic linker, resolver, TLS, time zone, and ossfs's table of types.
const SETTINGS: [&str; 17] = [
    "alternatives",
    "ca-certificates",
    "ca-certificates.conf",
    "crypto-policies",
    "gai.conf",
    "gnutls",
    "host.conf",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "nsswitch.conf",
    "pki",
    "protocols",
    "services",
    "ssl",
];
const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];
/// This program's own directory inside.
const OWN: &str = "/run/oss";
/// Where [`live_files`] are inside.
const LIVE: &str = "/etc/oss-live";
/// Largest key file, in bytes; a line has about a hundred.
const LARGEST_KEY: u64 = 64 << 10;
/// The tmpfs holds directories, the key and, at worst, a copy of this program.
const SIZE: &str = "size=64m,nr_inodes=4096,mode=755";

fn read_only() -> MsFlags {
    MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV
}

fn data() -> MsFlags {
    MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC
}

/// Enters new mount, IPC and UTS namespaces, and a root file system of which nothing but the
/// temporary directory and what is reachable can be written to. On an error the namespace is not fit
/// for anything, and its last process must end.
pub(super) fn enter(spec: &Spec, left_out: &mut Vec<String>) -> Result<Found> {
    let own = stub::program()?;
    let program = spec
        .program
        .canonicalize()
        .with_context(|| format!("find {}", spec.program.display()))?;
    unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
    for (flag, name) in [
        (CloneFlags::CLONE_NEWIPC, "IPC"),
        (CloneFlags::CLONE_NEWUTS, "UTS"),
    ] {
        if let Err(e) = unshare(flag) {
            left_out.push(format!("no {name} namespace ({e})"));
        }
    }
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(UNUSED, Path::new("/"), UNUSED, private, UNUSED).context("make the mounts private")?;
    let tree = Tree::mount(&spec.root, SIZE)?;
    add_system(&tree, left_out)?;
    add_stub(&tree, &own)?;
    add_settings(&tree, spec)?;
    add_devices(&tree)?;
    // What is reachable before what is the sandbox's own: that stays visible in it.
    tree.bind(&spec.temporary, Path::new(TEMPORARY), data())?;
    add_reachable(&tree, spec)?;
    // In the temporary directory an empty file is left of the sandbox before this one.
    if !tree.place(&program).exists() || program.starts_with(TEMPORARY) {
        tree.bind(&program, &program, read_only())?;
    }
    add_key(&tree, spec)?;
    add_mount_point(&tree, spec)?;
    become_root(&tree)?;
    Ok(Found {
        program,
        stub: OWN.into(),
    })
}

fn add_system(tree: &Tree, left_out: &mut Vec<String>) -> Result<()> {
    let table = MountTable::read()?;
    for path in SYSTEM.map(Path::new) {
        match std::fs::read_link(path) {
            // Relative: it is followed before this is the root directory, too.
            Ok(target) => tree.link(path, target.strip_prefix("/").unwrap_or(&target))?,
            Err(_) if path.is_dir() => {
                tree.bind(path, path, read_only())?;
                add_mounts_below(path, &table, tree, left_out);
            }
            Err(_) => {}
        }
    }
    Ok(())
}

/// Binds what is mounted below `directory`, as `/usr/local` may be. A file system that may wait for a
/// server or a daemon is left out, and so are those beyond a number that no node needs.
fn add_mounts_below(directory: &Path, table: &MountTable, tree: &Tree, left_out: &mut Vec<String>) {
    let mut points = table.below(directory);
    // Those below others come after them.
    points.reverse();
    for (count, point) in points.into_iter().enumerate() {
        let is_local = table
            .top(point)
            .is_some_and(|top| LOCAL.contains(&top.fs_type.as_str()));
        if !is_local || count >= MOST_MOUNTS {
            continue;
        }
        if let Err(e) = tree.bind(point, point, read_only()) {
            left_out.push(format!("no {} ({e:#})", point.display()));
        }
    }
}

/// Has every `fusermount` be this program.
fn add_stub(tree: &Tree, own: &Path) -> Result<()> {
    let path = Path::new(OWN).join(stub::NAMES[0]);
    // One that others may not execute, or that is gone, is copied.
    let executable =
        std::fs::metadata(own).is_ok_and(|meta| meta.permissions().mode() & 0o5 == 0o5);
    if executable {
        tree.bind(own, &path, read_only())?;
    } else {
        let content = std::fs::read("/proc/self/exe").context("read this program")?;
        tree.write(&path, &content, 0, 0o555)?;
    }
    tree.link(
        &Path::new(OWN).join(stub::NAMES[1]),
        Path::new(stub::NAMES[0]),
    )?;
    let stub = tree.place(&path);
    for place in stub::places() {
        let place = tree.place(&place);
        bind(&stub, &place, read_only())
            .with_context(|| format!("bind {} over {}", own.display(), place.display()))?;
    }
    Ok(())
}

fn add_settings(tree: &Tree, spec: &Spec) -> Result<()> {
    for name in SETTINGS {
        let path = Path::new("/etc").join(name);
        if path.exists() {
            tree.bind(&path, &path, read_only() | MsFlags::MS_NOEXEC)?;
        }
    }
    tree.bind(
        &spec.live_files,
        Path::new(LIVE),
        read_only() | MsFlags::MS_NOEXEC,
    )?;
    for name in live_files::NAMES {
        // As a directory, so that a file that replaces another there is seen.
        tree.link(&Path::new("/etc").join(name), &Path::new(LIVE).join(name))?;
    }
    Ok(())
}

fn add_devices(tree: &Tree) -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
    for name in DEVICES {
        let path = Path::new("/dev").join(name);
        if path.exists() {
            tree.bind(&path, &path, flags)?;
        }
    }
    // libfuse opens it before it tries mount(2), and does nothing with it.
    tree.bind(Path::new("/dev/null"), Path::new("/dev/fuse"), flags)
}

fn add_reachable(tree: &Tree, spec: &Spec) -> Result<()> {
    let mut all: Vec<_> = spec.reachable.iter().collect();
    all.sort_by(|a, b| a.path.cmp(&b.path));
    for reachable in all {
        let path = &reachable.path;
        if path == Path::new("/") {
            bail!("the root directory is not to be reachable");
        }
        // What can be written cannot be executed, and the other way round.
        let flags = if reachable.writable {
            data()
        } else {
            read_only()
        };
        tree.bind(path, path, flags)?;
    }
    Ok(())
}

/// A copy of the key file that belongs to ossfs, which refuses one that others could read.
fn add_key(tree: &Tree, spec: &Spec) -> Result<()> {
    let Some(path) = &spec.key_file else {
        return Ok(());
    };
    let mut key = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LARGEST_KEY + 1).read_to_end(&mut key))
        .with_context(|| format!("read {}", path.display()))?;
    if key.len() as u64 > LARGEST_KEY {
        bail!("{} is longer than {LARGEST_KEY} bytes", path.display());
    }
    let copy = Path::new(OWN).join("key");
    tree.write(&copy, &key, spec.uid, 0o400)?;
    let place = tree.make(path, Kind::File)?;
    bind(&tree.place(&copy), &place, read_only() | MsFlags::MS_NOEXEC)
        .with_context(|| format!("bind a copy of {}", path.display()))
}

/// The empty directory that ossfs takes for its mount point. It must be able to use it.
fn add_mount_point(tree: &Tree, spec: &Spec) -> Result<()> {
    let path = &spec.mount_point;
    let id = Some(spec.uid);
    let place = tree.make(path, Kind::Directory)?;
    let own = |place: &PathBuf| {
        chown(place, id.map(Uid::from_raw), id.map(Gid::from_raw))
            .with_context(|| format!("give {} to ossfs", path.display()))
    };
    if tree.is_own(path) {
        return own(&place);
    }
    let empty = tree.make(&Path::new(OWN).join("empty"), Kind::Directory)?;
    own(&empty)?;
    bind(&empty, &place, read_only() | MsFlags::MS_NOEXEC)
        .with_context(|| format!("bind an empty directory to {}", path.display()))
}

/// Makes the tree this process's root directory, read-only, and detaches all else.
fn become_root(tree: &Tree) -> Result<()> {
    let root = tree.root();
    std::env::set_current_dir(root).with_context(|| format!("enter {}", root.display()))?;
    // The old root comes to lie over the new one, and is detached from there (pivot_root(2)).
    match pivot_root(".", ".").map_err(|e| Errno::from_raw(e.raw_os_error())) {
        Ok(()) => umount2(".", MntFlags::MNT_DETACH).context("detach the node's root directory")?,
        // The node runs from its initial RAM disk, whose root cannot be replaced; or a filter of system
        // calls refuses it to a container's processes, as that of containerd does. What lies below is
        // out of reach for who has no capability.
        Err(Errno::EINVAL | Errno::EPERM | Errno::ENOSYS) => {
            mount(Some("."), "/", UNUSED, MsFlags::MS_MOVE, UNUSED)
                .context("move the new root directory")?;
            chroot(".").context("change the root directory")?;
        }
        Err(e) => return Err(e).context("change the root directory"),
    }
    std::env::set_current_dir("/").context("enter the new root directory")?;
    let flags = read_only() | MsFlags::MS_BIND | MsFlags::MS_REMOUNT;
    mount(UNUSED, "/", UNUSED, flags, UNUSED).context("make the root directory read-only")
}
