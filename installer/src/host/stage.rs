//! The step between the installer and a program of the host, which needs the host's root and mount
//! namespace around it. A process enters those once and for all, so a process of its own does: this
//! file under another name (`argv[0]`), `NAME ROOT PROGRAM ARGUMENT…`.

use crate::host::exec::{self, NotStarted};
use alicloud_oss::sys::command::PATH;
use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::SigSet;
use nix::sys::stat::Mode;
use nix::unistd::{chroot, fchdir};
use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// `argv[0]` of a stage that stays in the installer's cgroup.
pub(crate) const STAY: &str = "oss-installer-on-host";
/// `argv[0]` of a stage that leaves it for the cgroup of the host's first process.
pub(crate) const LEAVE: &str = "oss-installer-outside";
/// `argv[0]` of such a stage that first copies a file of the installer's to the host: in that cgroup
/// the copy is not counted as the installer's memory: `NAME ROOT FILE COPY PROGRAM ARGUMENT…`.
pub(crate) const COPY: &str = "oss-installer-copies";
/// The exit status of a stage that found no such program, as of shells.
pub(crate) const MISSING: i32 = 127;
/// The exit status of a stage that could not start the program for another reason.
const NOT_STARTED: i32 = 126;

/// Whether this process is a stage, by the name it was started under; then it becomes the program
/// and only returns with the error that kept it from that, and the exit status for it.
pub(crate) fn run(args: &[OsString]) -> Option<(String, i32)> {
    let [name, root, args @ ..] = args else {
        return None;
    };
    let root = Path::new(root);
    let (prepared, args) = match (name.to_str()?, args) {
        (STAY, args) => (prepare(root, false), args),
        (LEAVE, args) => (prepare(root, true), args),
        (COPY, [file, copy, args @ ..]) => {
            (copy_file(root, Path::new(file), Path::new(copy)), args)
        }
        _ => return None,
    };
    let [program, rest @ ..] = args else {
        return None;
    };
    if let Err(e) = prepared {
        return Some((format!("{e:#}"), NOT_STARTED));
    }
    let name = program.to_string_lossy();
    Some(match exec::replace_process(program, rest, PATH) {
        NotStarted::Missing => (format!("{name}: there is no such program"), MISSING),
        NotStarted::Refused(why) => (format!("{name}: {why}"), NOT_STARTED),
    })
}

/// `prepare` for a stage that leaves, then copies `file` to the host's path `copy`.
fn copy_file(root: &Path, file: &Path, copy: &Path) -> Result<()> {
    let mut file = File::open(file).with_context(|| format!("open {}", file.display()))?;
    prepare(root, true)?;
    let mut make = || {
        if let Some(directory) = copy.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)?;
        }
        match std::fs::remove_file(copy) {
            // Left by an installer that was killed.
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let new = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(copy);
        std::io::copy(&mut file, &mut new?)
    };
    make().with_context(|| format!("write {}", copy.display()))?;
    Ok(())
}

fn prepare(root: &Path, leaves: bool) -> Result<()> {
    // The installer blocks the signals that end it, and execve(2) keeps that.
    SigSet::empty()
        .thread_set_mask()
        .context("unblock signals")?;
    let process = process_of(root);
    if leaves && let Some(process) = &process {
        // All namespaces that a Pod with hostPID has of its own: what is started here outlives them.
        for (name, kind) in [
            ("cgroup", CloneFlags::CLONE_NEWCGROUP),
            ("ipc", CloneFlags::CLONE_NEWIPC),
            ("net", CloneFlags::CLONE_NEWNET),
            ("uts", CloneFlags::CLONE_NEWUTS),
        ] {
            join(&process.join("ns").join(name), name, kind)?;
        }
    }
    enter(root, process.as_deref())?;
    if leaves { leave_cgroup() } else { Ok(()) }
}

/// The directory of the process whose root is written as `/proc/PID/root`.
fn process_of(root: &Path) -> Option<PathBuf> {
    let process = root.parent().filter(|_| root.ends_with("root"))?;
    process.join("ns/mnt").exists().then(|| process.to_owned())
}

/// Makes `root` the root of this process, with the mount namespace of `process`, whose it is.
fn enter(root: &Path, process: Option<&Path>) -> Result<()> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let directory =
        open(root, flags, Mode::empty()).with_context(|| format!("open {}", root.display()))?;
    if let Some(process) = process {
        join(&process.join("ns/mnt"), "mnt", CloneFlags::CLONE_NEWNS)?;
    }
    fchdir(&directory).with_context(|| format!("change to {}", root.display()))?;
    match chroot(".") {
        // Run on the host itself by a user that is not root, and there is nothing to change.
        Err(Errno::EPERM) if root == Path::new("/") => Ok(()),
        result => result.with_context(|| format!("chroot to {}", root.display())),
    }
}

/// Enters the namespace at `path`, unless this process is in it.
fn join(path: &Path, name: &str, kind: CloneFlags) -> Result<()> {
    let own = std::fs::read_link(Path::new("/proc/self/ns").join(name)).ok();
    if std::fs::read_link(path).ok() == own {
        return Ok(());
    }
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    setns(file, kind).with_context(|| format!("enter {}", path.display()))
}

/// Moves this process to the cgroups of the host's first process. On a host without /proc there are none.
fn leave_cgroup() -> Result<()> {
    let Ok(text) = std::fs::read_to_string("/proc/1/cgroup") else {
        return Ok(());
    };
    for file in text.lines().flat_map(cgroup_files) {
        if !file.exists() {
            continue;
        }
        match std::fs::write(&file, "0") {
            // The host is a container without write access to this hierarchy: all its processes
            // are in one cgroup.
            Err(e) if e.kind() == ErrorKind::ReadOnlyFilesystem => {}
            written => written.with_context(|| format!("write {}", file.display()))?,
        }
    }
    Ok(())
}

/// The files through which a process joins the cgroup in a line of `/proc/PID/cgroup`, below the usual
/// mount points (cgroups(7)): one hierarchy for all, or one for each list of controllers.
fn cgroup_files(line: &str) -> Vec<PathBuf> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
        return Vec::new();
    };
    let hierarchies = match controllers.strip_prefix("name=").unwrap_or(controllers) {
        "" => vec!["", "unified"],
        name => vec![name],
    };
    hierarchies
        .into_iter()
        .map(|name| {
            Path::new("/sys/fs/cgroup")
                .join(name)
                .join(path.trim_start_matches('/'))
                .join("cgroup.procs")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{cgroup_files, process_of};
    use std::path::Path;

    #[test]
    fn cgroups_are_below_the_usual_mount_points() {
        for (line, expected) in [
            (
                "0::/init.scope",
                vec![
                    "/sys/fs/cgroup/init.scope/cgroup.procs",
                    "/sys/fs/cgroup/unified/init.scope/cgroup.procs",
                ],
            ),
            (
                "4:cpu,cpuacct:/",
                vec!["/sys/fs/cgroup/cpu,cpuacct/cgroup.procs"],
            ),
            (
                "1:name=systemd:/a/b",
                vec!["/sys/fs/cgroup/systemd/a/b/cgroup.procs"],
            ),
            ("garbage", vec![]),
        ] {
            let expected: Vec<&Path> = expected.into_iter().map(Path::new).collect();
            assert_eq!(cgroup_files(line), expected, "{line}");
        }
    }

    #[test]
    fn only_a_processs_root_has_a_process() {
        assert_eq!(
            process_of(Path::new("/proc/self/root")).as_deref(),
            Some(Path::new("/proc/self"))
        );
        assert_eq!(process_of(Path::new("/")), None);
        assert_eq!(process_of(Path::new("/srv/root")), None);
    }
}
