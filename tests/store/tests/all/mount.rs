//! Real mounts, each in a mount namespace of its own.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use nix::mount::{MntFlags, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use store::mounter;
use tempfile::TempDir;

use crate::client::LONG;

/// Runs a test on a thread whose mounts nobody else sees and which go away with it. Where no file
/// system can be mounted it is skipped, except in CI, where that would hide it for good.
pub(crate) fn privately(test: impl FnOnce() + Send) {
    if let Err(missing) = possible() {
        let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!ci, "cannot mount: {missing}");
        skipped(missing);
        return;
    }
    support::namespace::with_own_mounts(test);
}

fn possible() -> Result<(), &'static str> {
    if !nix::unistd::geteuid().is_root() {
        return Err("not root");
    }
    if !Path::new("/dev/fuse").exists() {
        return Err("no /dev/fuse");
    }
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let program = &mounter().program;
    if !std::env::split_paths(&paths).any(|path| path.join(program).is_file()) {
        return Err("no s3fs");
    }
    Ok(())
}

#[expect(
    clippy::print_stderr,
    reason = "a test that did not run must not look like one that passed"
)]
fn skipped(missing: &str) {
    eprintln!("skipped: {missing}");
}

/// An s3fs in the foreground and the directory it is to be mounted on. Neither outlives this.
pub(crate) struct S3fs {
    child: Child,
    directory: TempDir,
}

impl S3fs {
    pub(crate) fn start(url: &str, bucket: &str, key: &str, options: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = |name: &str| directory.path().join(name);
        fs::create_dir(path("mount")).expect("a mount point");
        let passwords = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path("passwords"));
        passwords
            .and_then(|mut file| writeln!(file, "{key}"))
            .expect("a password file");
        let output = File::create(path("output")).expect("a file for the output");
        let child = Command::new(&mounter().program)
            .arg(bucket)
            .arg(path("mount"))
            .arg("-f")
            .arg(format!("-ourl={url}"))
            .arg(format!("-opasswd_file={}", path("passwords").display()))
            .args(options)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("the file for the output"))
            .stderr(output)
            .spawn()
            .expect("the program started");
        Self { child, directory }
    }

    pub(crate) fn mounted(url: &str, bucket: &str, key: &str, options: &[&str]) -> Self {
        let mut s3fs = Self::start(url, bucket, key, options);
        s3fs.wait_for_mount();
        s3fs
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("mount").join(name)
    }

    pub(crate) fn output(&self) -> String {
        fs::read_to_string(self.directory.path().join("output")).unwrap_or_default()
    }

    /// Whether the directory is one of another file system than its parent. Blocks as long as
    /// s3fs checks the bucket, because it mounts before it does so.
    pub(crate) fn is_mounted(&self) -> bool {
        let device = |path: &Path| fs::metadata(path).map(|found| found.dev());
        match (device(&self.path("")), device(self.directory.path())) {
            (Ok(mount), Ok(parent)) => mount != parent,
            _ => false,
        }
    }

    fn wait_for_mount(&mut self) {
        // The kernel flags this file after every change to the mounts of the thread that opened it.
        let mounts = File::open("/proc/thread-self/mountinfo").expect("the mount table");
        let end = Instant::now() + LONG;
        while !self.is_mounted() {
            let ended = self.child.try_wait().expect("the state of s3fs");
            assert!(
                ended.is_none() && Instant::now() < end,
                "not mounted: {}",
                self.output()
            );
            // The time limits how long an s3fs that ended without a mount stays unnoticed.
            let mut table = [PollFd::new(mounts.as_fd(), PollFlags::POLLPRI)];
            poll(&mut table, PollTimeout::from(50u8)).expect("a change of the mount table");
        }
    }

    /// Waits for s3fs to end by itself.
    pub(crate) fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }

    /// Unmounts as an administrator would, which ends s3fs.
    pub(crate) fn unmount(mut self) -> ExitStatus {
        umount2(&self.path(""), MntFlags::empty()).expect("unmounted");
        self.wait().expect("the end of s3fs")
    }
}

impl Drop for S3fs {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // What cannot be undone here is undone by the end of the namespace.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let _ = umount2(&self.path(""), MntFlags::MNT_DETACH);
    }
}
