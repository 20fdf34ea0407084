//! Volumes that another build mounted: one before `oss serve`, whose ossfs is root's and on the staging directory
//! itself, or a newer one.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use support::{PATIENCE, Pidfd, Sandbox, with_sandbox};

const DRIVER: &str = env!("CARGO_BIN_EXE_oss");

/// What such a build left for a volume: the files that this one writes as well, without its own.
const FILES: [&str; 3] = ["volume.json", "passwd", "lock"];

/// A volume as such a build mounts it at `target`.
struct Volume {
    directory: PathBuf,
    ossfs: Child,
}

impl Volume {
    /// Has this build mount the volume once, for the files that are the same, and then mounts it as
    /// the build before did.
    fn mount(node: &Sandbox, target: &Path, options: &Value) -> Self {
        node.mount(target, options).success();
        let directory = node.volume_of(target);
        let read = |name: &str| (name.to_owned(), fs::read(directory.join(name)).unwrap());
        let mut files: Vec<_> = FILES.into_iter().map(read).collect();
        for entry in fs::read_dir(directory.join("targets")).unwrap() {
            files.push(read(&format!(
                "targets/{}",
                entry.unwrap().file_name().display()
            )));
        }
        node.unmount(target).success();
        for name in ["", "targets", "staging"] {
            let path = directory.join(name);
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
        }
        let write = |name: &str, content: &[u8]| {
            let path = directory.join(name);
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        };
        for (name, content) in &files {
            write(name, content);
        }
        let start: Value = serde_json::from_slice(&files[0].1).unwrap();
        let arguments = start["arguments"].as_array().unwrap();
        let ossfs = Command::new(start["program"].as_str().unwrap())
            .args(arguments.iter().map(|argument| argument.as_str().unwrap()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Number, start time and boot, as `ProcessId` reads them.
        let stat = fs::read_to_string(format!("/proc/{}/stat", ossfs.id())).unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let started = fields.split(' ').nth(19).unwrap();
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        write(
            "daemon",
            format!("{} {started} {boot}", ossfs.id()).as_bytes(),
        );
        let staging = directory.join("staging");
        support::wait_until("ossfs has mounted", || node.mounts_at(&staging) == 1);
        fs::create_dir_all(target).unwrap();
        let none = None::<&str>;
        mount(Some(&staging), target, none, MsFlags::MS_BIND, none).unwrap();
        Self { directory, ossfs }
    }

    /// Waits for ossfs, which is a child of this test.
    fn end(mut self) {
        assert!(Pidfd::wait_for_end(self.ossfs.id().cast_signed(), PATIENCE));
        self.ossfs.wait().unwrap();
    }
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn one_goes_on_is_shared_and_is_unmounted() {
    with_sandbox(DRIVER, |node| {
        let (first, second) = (node.target("u1", "v"), node.target("u2", "v"));
        let options = node.options(json!({}));
        let volume = Volume::mount(node, &first, &options);
        fs::write(first.join("file"), "content").unwrap();
        // kubelet asks again after its restart, and another Pod comes.
        let args = ["mount", first.to_str().unwrap(), &options.to_string()];
        node.kubelet.call(&args).success();
        node.mount(&second, &options).success();
        assert_eq!(node.heal().unwrap(), "");
        let ours = volume.ossfs.id().cast_signed();
        assert_eq!(node.daemons(), [ours]);
        assert_eq!(node.servers("--parent"), [] as [i32; 0]);
        assert!(!volume.directory.join("serve.json").exists());
        assert_eq!(fs::read(second.join("file")).unwrap(), b"content");
        node.unmount(&first).success();
        fs::write(second.join("file"), "again").unwrap();
        // Whoever waits for the process sees its end although nobody has reaped it.
        node.unmount(&second).success();
        assert_eq!(node.store.object("docker", "file").unwrap(), b"again");
        volume.end();
        node.assert_clean();
        // The next first mount is served by the new process.
        node.mount(&first, &options).success();
        assert_eq!(node.servers("--parent").len(), 1);
        node.unmount(&first).success();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn one_whose_ossfs_died_is_served_by_the_new_process_for_all_its_pods() {
    with_sandbox(DRIVER, |node| {
        let (first, second) = (node.target("u1", "v"), node.target("u2", "v"));
        node.store.put("docker", "file", "content");
        let options = node.options(json!({}));
        let volume = Volume::mount(node, &first, &options);
        kill(
            Pid::from_raw(volume.ossfs.id().cast_signed()),
            Signal::SIGKILL,
        )
        .unwrap();
        volume.end();
        // It does not know enough for that.
        let told = node.heal().unwrap_err();
        let expected = "an earlier build of the driver mounted it and its ossfs has ended: it is served \
                        again once another Pod mounts this volume";
        assert!(told.contains(expected), "{told}");
        node.mount(&second, &options).success();
        assert_eq!(node.servers("--parent").len(), 1);
        for target in [&first, &second] {
            assert_eq!(fs::read(target.join("file")).unwrap(), b"content");
        }
        assert!(node.log().contains("restart the Pods u1"), "{}", node.log());
        assert_eq!(node.heal().unwrap(), "");
        for target in [&first, &second] {
            node.unmount(target).success();
        }
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn one_whose_ossfs_died_is_unmounted() {
    with_sandbox(DRIVER, |node| {
        let target = node.target("u1", "v");
        let volume = Volume::mount(node, &target, &node.options(json!({})));
        let ossfs = Pid::from_raw(volume.ossfs.id().cast_signed());
        kill(ossfs, Signal::SIGKILL).unwrap();
        volume.end();
        node.unmount(&target).success();
        node.assert_clean();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn one_of_a_newer_build_is_left_alone_until_it_is_unmounted() {
    with_sandbox(DRIVER, |node| {
        let (first, second) = (node.target("u1", "v"), node.target("u2", "v"));
        let options = node.options(json!({}));
        node.mount(&first, &options).success();
        let directory = node.volume_of(&first);
        for name in ["volume.json", "serve.json"] {
            let text = fs::read(directory.join(name)).unwrap();
            let mut record: Value = serde_json::from_slice(&text).unwrap();
            record["version"] = json!(99);
            record["build"] = json!("9.0 (abc)");
            record["addedLater"] = json!({});
            fs::write(directory.join(name), record.to_string()).unwrap();
        }
        let answer = node.mount(&second, &options);
        let message = answer.failure();
        assert!(
            message.contains("build \"9.0 (abc)\" of the driver wrote it in format 99"),
            "{message}"
        );
        fs::write(first.join("file"), "content").unwrap();
        node.unmount(&first).success();
        assert_eq!(node.store.object("docker", "file").unwrap(), b"content");
        assert!(!directory.exists());
        node.mount(&second, &options).success();
        node.unmount(&second).success();
    });
}
