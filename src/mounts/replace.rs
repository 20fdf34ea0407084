//! Putting a live file system where a dead one of the same volume still shows, in this mount
//! namespace or in another one, without unmounting what a container has been given.
//!
//! The first dead layer at a place, its base, stays: what is mounted on it is what mount propagation
//! passes on, and as long as it is there the kernel gives its device number to no other file system.
//! Dead layers above the base are taken away, so that there are never more than two; but at the
//! node's targets a device stays for as long as a container has it as its base, for the targets tell
//! which devices were this volume's.

use crate::mounts::bind::{bind, flags_of, make_private, set_flags};
use crate::mounts::directory::Directory;
use crate::mounts::table::{Mount, MountTable};
use crate::sys::deadline::Deadline;
use crate::sys::helper::Helper;
use crate::sys::root_only;
use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::Mode;
use nix::sys::statvfs::fstatvfs;
use nix::unistd::fchdir;
use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

/// The live file system of a volume and the dead ones that it takes the place of, by device number.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub(crate) struct Succession {
    pub(crate) live: String,
    /// The options of the mount at staging.
    pub(crate) options: String,
    pub(crate) dead: BTreeSet<String>,
    /// Those of the dead that are not taken away where they are.
    pub(crate) kept: BTreeSet<String>,
    /// Peer groups: a place that follows one of them is left to mount propagation, unless it has
    /// other flags: what is passed on to a read-only mount is not read-only itself.
    pub(crate) left_to: BTreeSet<u64>,
}

/// One mount point that shows a dead file system.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) mount_point: PathBuf,
    /// The directory of the file system that is shown there.
    root: PathBuf,
    options: String,
    /// The ids of the dead mounts, from the base to the top.
    layers: Vec<u64>,
    /// How many of these stay.
    keep: usize,
    /// Whether it is below another such place, whose new mount will hide it.
    nested: bool,
}

impl Place {
    /// Whether a sub-directory is shown, as with a container's subPath.
    fn is_sub_path(&self) -> bool {
        self.root != Path::new("/")
    }
}

/// The layers of the volume at one mount point that are not the live one, from the base to the top,
/// and whether the live one is on them. None if the highest of them is not known to be dead.
fn dead_layers<'a>(
    table: &'a MountTable,
    point: &Path,
    succession: &Succession,
) -> (Vec<&'a Mount>, bool) {
    let layers = table.layers(point);
    let is_live = |m: &&Mount| m.device == succession.live;
    let is_healed = layers.last().is_some_and(is_live);
    let mut below = layers.into_iter().rev().skip_while(is_live).peekable();
    let Some(top) = below.peek().copied().filter(|m| is_dead(m, succession)) else {
        return (Vec::new(), is_healed);
    };
    // What is below a dead one is of the same volume, and older.
    let mut dead: Vec<&Mount> = below
        .take_while(|m| m.is_ossfs() && m.root == top.root && m.device != succession.live)
        .collect();
    dead.reverse();
    (dead, is_healed)
}

fn is_dead(mount: &Mount, succession: &Succession) -> bool {
    mount.is_ossfs() && succession.dead.contains(&mount.device)
}

/// The mount points in `table` with a dead file system of `succession`, outer ones first.
fn points<'a>(table: &'a MountTable, succession: &Succession) -> BTreeSet<&'a Path> {
    table
        .iter()
        .filter(|m| is_dead(m, succession))
        .map(|m| m.mount_point.as_path())
        .collect()
}

/// The places in `table` where a dead file system of `succession` is on top, outer ones first.
pub(crate) fn places(table: &MountTable, succession: &Succession) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    for point in points(table, succession) {
        let (dead, is_healed) = dead_layers(table, point, succession);
        let Some(base) = dead.first().filter(|_| !is_healed) else {
            continue;
        };
        // Nothing can be mounted on it any more (ENOENT). The kernel also takes a directory for deleted
        // when it has to look it up in its parent and no daemon answers.
        if base.root.to_string_lossy().ends_with("//deleted") {
            continue;
        }
        let follows: BTreeSet<u64> = dead.iter().filter_map(|m| m.master).collect();
        let alike = flags_of(&base.options) == flags_of(&succession.options);
        if alike && !follows.is_disjoint(&succession.left_to) {
            continue;
        }
        let kept = dead
            .iter()
            .rposition(|m| succession.kept.contains(&m.device));
        places.push(Place {
            mount_point: point.to_owned(),
            root: base.root.clone(),
            options: base.options.clone(),
            layers: dead.iter().map(|m| m.id).collect(),
            keep: kept.unwrap_or(0) + 1,
            nested: places
                .iter()
                .any(|outer| point.starts_with(&outer.mount_point)),
        });
    }
    places
}

/// The devices that the node's targets must keep for the mounts in `table`, of another namespace: the
/// bases there, and what still shows although `succession` has been carried out. Not those of mounts
/// that come and go with the node's own, because they are on one that follows one of `parents`.
pub(crate) fn needed(
    table: &MountTable,
    succession: &Succession,
    parents: &BTreeSet<u64>,
) -> BTreeSet<String> {
    let left = places(table, succession);
    let is_left = |point: &Path| left.iter().any(|place| place.mount_point == point);
    let mut needed = BTreeSet::new();
    for point in points(table, succession) {
        let (dead, _) = dead_layers(table, point, succession);
        let parent = dead.first().and_then(|base| table.parent(base));
        let groups = parent.map(|parent| [parent.master, parent.shared]);
        if groups
            .iter()
            .flatten()
            .flatten()
            .any(|g| parents.contains(g))
        {
            continue;
        }
        let count = if is_left(point) { dead.len() } else { 1 };
        needed.extend(dead.iter().take(count).map(|m| m.device.clone()));
    }
    needed
}

/// Replaces in a helper process, which may have to wait for the store where a sub-directory is shown:
/// in the mount namespace of the process `namespace`, or in this one. Returns one line for each
/// place that could not be healed.
pub(crate) fn replace(
    staging: &Path,
    succession: &Succession,
    namespace: Option<i32>,
    deadline: Deadline,
) -> Result<Vec<String>> {
    let helper = Replace {
        staging: staging.to_owned(),
        succession: succession.clone(),
        namespace,
    };
    match helper.call(deadline)? {
        Some(failed) => Ok(failed),
        None => bail!("the store has not answered a lookup of a sub-directory in time"),
    }
}

/// The helper process of `replace`.
#[derive(Serialize, Deserialize)]
pub(crate) struct Replace {
    staging: PathBuf,
    succession: Succession,
    namespace: Option<i32>,
}

impl Helper for Replace {
    const NAME: &'static str = "oss-replace";
    type Output = Vec<String>;

    fn run(self) -> Result<Vec<String>> {
        replace_here(&self.staging, self.succession, self.namespace)
    }
}

fn replace_here(
    staging: &Path,
    mut succession: Succession,
    namespace: Option<i32>,
) -> Result<Vec<String>> {
    let host = MountTable::read()?;
    succession.options = match host.top(staging) {
        Some(top) if top.device == succession.live => top.options.clone(),
        _ => bail!(
            "{} does not show the live file system any more",
            staging.display()
        ),
    };
    // Of this pid namespace, also when the mount namespace has a /proc of its own.
    let proc =
        open("/proc", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).context("open /proc")?;
    let namespace = match namespace {
        None => None,
        Some(pid) => match open_namespace(pid)? {
            Some(namespace) => Some(namespace),
            // The container has ended: nobody is left to heal.
            None => return Ok(Vec::new()),
        },
    };
    let table = namespace.as_ref().map_or(&host, |(_, table)| table);
    let mut failed = Vec::new();
    let mut clones = Vec::new();
    for place in places(table, &succession) {
        match clone_of(staging, &succession.options, &place) {
            Ok(clone) => clones.push((place, clone)),
            Err(e) => failed.push(format!("{}: {e:#}", place.mount_point.display())),
        }
    }
    if let Some((namespace, _)) = &namespace {
        setns(namespace, CloneFlags::CLONE_NEWNS).context("enter the mount namespace")?;
    }
    for (place, clone) in &clones {
        if let Err(e) = attach(&proc, place, clone, namespace.is_none()) {
            failed.push(format!("{}: {e:#}", place.mount_point.display()));
        }
    }
    Ok(failed)
}

fn open_namespace(pid: i32) -> Result<Option<(OwnedFd, MountTable)>> {
    let path = format!("/proc/{pid}/ns/mnt");
    let namespace = match open(
        path.as_str(),
        OFlag::O_RDONLY | OFlag::O_CLOEXEC,
        Mode::empty(),
    ) {
        Ok(namespace) => namespace,
        Err(Errno::ENOENT | Errno::ESRCH) => return Ok(None),
        Err(e) => return Err(e).with_context(|| format!("open {path}")),
    };
    match std::fs::read(format!("/proc/{pid}/mountinfo")) {
        Ok(bytes) => Ok(Some((
            namespace,
            MountTable::parse(&String::from_utf8_lossy(&bytes)),
        ))),
        Err(_) => Ok(None),
    }
}

/// A mount of what `place` is to show, with the flags that it had there, not attached anywhere yet.
fn clone_of(staging: &Path, live_options: &str, place: &Place) -> Result<OwnedFd> {
    let relative = place.root.strip_prefix("/").unwrap_or(&place.root);
    let source =
        Directory::open(&staging.join(relative))?.context("it is not in the bucket any more")?;
    let flags = flags_of(&place.options);
    if flags == flags_of(live_options) {
        return detached(&source);
    }
    // A clone takes the flags of the mount it is made of: so one with other flags is made first,
    // rather than that a read-only place is writable for a moment.
    let scratch = staging.with_file_name("scratch");
    root_only::make_directory(&scratch)?;
    let open_scratch = || Directory::open(&scratch)?.context("the scratch directory is gone");
    bind(&source, &open_scratch()?)?;
    let clone = open_scratch().and_then(|bound| {
        set_flags(&bound, flags)?;
        make_private(&bound)?;
        detached(&bound)
    });
    umount2(&scratch, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)
        .context("unmount the scratch directory")?;
    root_only::remove_directory(&scratch)?;
    clone
}

fn detached(source: &Directory) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(CWD, source.proc_path(), flags).map_err(|e| match e {
        rustix::io::Errno::NOSYS => anyhow::anyhow!(
            "Linux 5.2 or newer is needed to heal a running container: restart the Pod"
        ),
        e => anyhow::Error::from(e).context("clone the live mount"),
    })
}

/// Attaches `clone` at `place`, in the namespace that this process is in now.
fn attach(proc: &OwnedFd, place: &Place, clone: &OwnedFd, own_namespace: bool) -> Result<()> {
    // Open from here on, it keeps its device's number.
    let top = open_at(place)?;
    if answers(&top)? {
        // Unmounted meanwhile, and its number given to another file system.
        return Ok(());
    }
    if !place.nested {
        // In the node's own namespace a sub-path's base goes, too: it is in the peer group of its
        // volume's target, where what is mounted on it would show as well.
        let keep = match own_namespace && place.is_sub_path() {
            true => 0,
            false => place.keep,
        };
        for expected in place.layers.iter().skip(keep).rev() {
            pop(proc, place, *expected)?;
        }
    }
    let at = open_at(place)?;
    if !own_namespace {
        // From here on this mount is on its own: nothing that is mounted at the target it follows
        // comes on top of what it gets now.
        let name = enter_parent(place)?;
        mount(
            None::<&str>,
            name,
            None::<&str>,
            MsFlags::MS_PRIVATE,
            None::<&str>,
        )
        .context("make the dead mount private")?;
    }
    move_mount(
        clone,
        "",
        at.as_fd(),
        "",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
    )
    .context("attach the live mount")
}

/// Whether the file system of `directory` is not one whose daemon has ended.
fn answers(directory: &Directory) -> Result<bool> {
    match fstatvfs(directory.as_fd()) {
        Ok(_) => Ok(true),
        // The connection was aborted, or has ended.
        Err(Errno::ENOTCONN | Errno::ECONNABORTED) => Ok(false),
        Err(e) => Err(e).context("ask the file system that is mounted there"),
    }
}

/// Unmounts the top layer at `place`, if it is the mount `expected`.
fn pop(proc: &OwnedFd, place: &Place, expected: u64) -> Result<()> {
    let top = open_at(place)?;
    if mount_id(proc, &top)? != Some(expected) {
        bail!("something else is mounted there meanwhile");
    }
    drop(top);
    let name = enter_parent(place)?;
    umount2(name, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)
        .context("unmount the dead layer")
}

/// Changes to the directory that the place is in, and returns the place's name there: the process may
/// be where no /proc of its own leads to an open directory, and a dead one cannot be entered.
fn enter_parent(place: &Place) -> Result<&OsStr> {
    let (Some(parent), Some(name)) = (place.mount_point.parent(), place.mount_point.file_name())
    else {
        bail!("it is the root of its namespace");
    };
    let parent = Directory::open(parent)?.context("its directory is gone")?;
    fchdir(parent.as_fd()).context("enter its directory")?;
    Ok(name)
}

fn open_at(place: &Place) -> Result<Directory> {
    Directory::open(&place.mount_point)?.context("its directory is gone")
}

fn mount_id(proc: &OwnedFd, directory: &Directory) -> Result<Option<u64>> {
    let path = format!("self/fdinfo/{}", directory.as_fd().as_raw_fd());
    let file = openat(
        proc,
        path.as_str(),
        OFlag::O_RDONLY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .context("open fdinfo")?;
    let mut text = String::new();
    std::io::Read::read_to_string(&mut std::fs::File::from(file), &mut text)
        .context("read fdinfo")?;
    Ok(crate::mounts::directory::mount_id_in(&text))
}

#[cfg(test)]
mod tests {
    use super::{Succession, places};
    use crate::mounts::table::MountTable;
    use std::collections::BTreeSet;
    use std::path::Path;

    const TABLE: &str = "\
1 0 8:1 / / rw - ext4 /dev/sda rw
10 1 0:50 / /data ro,nosuid,nodev master:4 - fuse.ossfs ossfs rw
11 1 0:50 /sub /logs rw,nosuid,nodev - fuse.ossfs ossfs rw
12 1 0:50 / /healed rw - fuse.ossfs ossfs rw
13 12 0:60 / /healed rw - fuse.ossfs ossfs rw
14 1 0:50 / /twice rw - fuse.ossfs ossfs rw
15 14 0:51 / /twice rw - fuse.ossfs ossfs rw
16 1 0:50 / /covered rw - fuse.ossfs ossfs rw
17 16 0:70 / /covered rw - tmpfs none rw
18 1 0:52 / /other rw - fuse.ossfs ossfs rw
19 1 0:50 / /tmp rw - tmpfs none rw
20 10 0:50 /in /data/in rw - fuse.ossfs ossfs rw
22 1 0:49 / /later rw - fuse.ossfs ossfs rw
23 22 0:51 / /later rw - fuse.ossfs ossfs rw
21 1 0:50 /gone//deleted /gone rw - fuse.ossfs ossfs rw
";

    #[test]
    fn only_dead_file_systems_of_the_volume_that_show_are_replaced() {
        let succession = Succession {
            live: "0:60".to_owned(),
            options: "ro,nosuid,nodev".to_owned(),
            dead: ["0:50".to_owned(), "0:51".to_owned()].into(),
            kept: BTreeSet::new(),
            left_to: BTreeSet::new(),
        };
        let places = places(&MountTable::parse(TABLE), &succession);
        let found: Vec<_> = places
            .iter()
            .map(|p| {
                (
                    p.mount_point.to_str().unwrap(),
                    p.root.to_str().unwrap(),
                    p.layers.as_slice(),
                    p.nested,
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                ("/data", "/", &[10][..], false),
                ("/data/in", "/in", &[20], true),
                ("/later", "/", &[22, 23], false),
                ("/logs", "/sub", &[11], false),
                ("/twice", "/", &[14, 15], false),
            ]
        );
        assert_eq!(places[0].options, "ro,nosuid,nodev");
        let keep = |places: &[super::Place]| places.iter().map(|p| p.keep).collect::<Vec<_>>();
        assert_eq!(keep(&places), [1, 1, 1, 1, 1]);
        let kept = super::places(
            &MountTable::parse(TABLE),
            &Succession {
                kept: ["0:51".to_owned()].into(),
                ..succession.clone()
            },
        );
        assert_eq!(keep(&kept), [1, 1, 2, 1, 2]);
        let succession = Succession {
            left_to: [4].into(),
            ..succession
        };
        let left = super::places(&MountTable::parse(TABLE), &succession);
        assert!(
            left.iter()
                .all(|place| place.mount_point != Path::new("/data"))
        );
        let other_flags = Succession {
            options: "rw,nosuid,nodev".to_owned(),
            ..succession
        };
        let kept = super::places(&MountTable::parse(TABLE), &other_flags);
        assert_eq!(kept[0].mount_point, Path::new("/data"));
    }

    #[test]
    fn what_a_container_stands_on_and_what_it_still_shows_is_needed() {
        let succession = Succession {
            live: "0:60".to_owned(),
            options: "rw".to_owned(),
            dead: ["0:50", "0:51", "0:52"].map(str::to_owned).into(),
            kept: BTreeSet::new(),
            left_to: [7].into(),
        };
        let needed = |lines: &str| {
            let text = format!("1 0 8:1 / / rw - ext4 /dev/sda rw\n{lines}");
            let needed = super::needed(&MountTable::parse(&text), &succession, &[9].into());
            needed.into_iter().collect::<Vec<_>>()
        };
        let fuse = "- fuse.ossfs ossfs rw\n";
        for (lines, expected) in [
            // Healed, a base with the live one on it.
            (
                format!("2 1 0:51 / /d rw {fuse}3 2 0:60 / /d rw {fuse}"),
                &["0:51"][..],
            ),
            // What could not be healed.
            (
                format!("2 1 0:51 / /d rw {fuse}3 2 0:52 / /d rw {fuse}"),
                &["0:51", "0:52"],
            ),
            // What follows the target goes and comes with it, but for its base.
            (
                format!("2 1 0:51 / /d rw master:7 {fuse}3 2 0:52 / /d rw master:8 {fuse}"),
                &["0:51"],
            ),
            (format!("2 1 0:60 / /d rw {fuse}"), &[]),
            // What is mounted where the node's own mounts are shown.
            (
                format!("2 1 8:1 /k /k rw master:9 - ext4 /dev/sda rw\n3 2 0:51 / /k/d rw {fuse}"),
                &[],
            ),
        ] {
            assert_eq!(needed(&lines), expected, "{lines}");
        }
    }
}
