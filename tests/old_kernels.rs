//! The driver where every system call that came after Linux 3.10, and then after 4.19, fails with ENOSYS:
//! mounting, writing, the deaths that a volume outlives, sharing, unmounting. What else older kernels lack
//! (flags of calls, FUSE's own requests, features of control groups) no filter can take away.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, getpid, pidfd_open};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};
use serde_json::json;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use support::{Container, Propagation, Sandbox, with_sandbox};

const DRIVER: &str = env!("CARGO_BIN_EXE_oss");

/// The first system call after `release`: numbers are given out in order. From 424 on they are the same on
/// all architectures (asm/unistd.h, uapi/asm-generic/unistd.h).
fn first_after(release: &str) -> i64 {
    match (release, std::env::consts::ARCH) {
        ("3.10", "x86_64") => 314,
        ("3.10", "aarch64") => 274,
        ("4.19", "x86_64") => 335,
        ("4.19", "aarch64") => 294,
        other => panic!("{other:?}"),
    }
}

/// A filter for calls from `first` on. Beyond 600 there are none, but for those of another ABI.
fn without_calls_from(first: i64) -> BpfProgram {
    let rules = (first..600).map(|call| (call, Vec::new())).collect();
    let refused = SeccompAction::Errno(Errno::ENOSYS as u32);
    let architecture = TargetArch::try_from(std::env::consts::ARCH).unwrap();
    SeccompFilter::new(rules, SeccompAction::Allow, refused, architecture)
        .unwrap()
        .try_into()
        .unwrap()
}

/// What a Pod sees of a volume whose processes are killed.
fn volume_lives(node: &Sandbox) {
    let [target, second] = ["u1", "u2"].map(|pod| node.target(pod, "oss1"));
    let options = node.options(json!({}));
    node.store.put("docker", "file", "content");
    node.kubelet.call(&["init"]).success();
    node.mount(&target, &options).success();
    node.mount(&second, &options).success();
    let path = node.path("container");
    fs::create_dir(&path).unwrap();
    let container = Container::start(&target, &path, Propagation::Private, false);
    for (round, kills_serve) in [false, true, false, true].into_iter().enumerate() {
        let mut reader = File::open(container.path("file")).unwrap();
        let mut writer = File::create(container.path(&format!("lost-{round}"))).unwrap();
        writer.write_all(b"lost").unwrap();
        let process = match kills_serve {
            true => node.servers("--child")[0],
            false => node.daemon_of(&target),
        };
        kill(Pid::from_raw(process), Signal::SIGKILL).unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "content");
        let error = writer.write_all(b"lost").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::EIO as i32));
        drop(writer);
        let name = format!("kept-{round}");
        fs::write(container.path(&name), "kept").unwrap();
        assert_eq!(node.store.object("docker", &name).unwrap(), b"kept");
    }
    let mut file = OpenOptions::new()
        .append(true)
        .open(second.join("kept-0"))
        .unwrap();
    file.write_all(b" and more").unwrap();
    drop(file);
    fs::rename(second.join("kept-0"), second.join("renamed")).unwrap();
    assert_eq!(
        node.store.object("docker", "renamed").unwrap(),
        b"kept and more"
    );
    assert_eq!(node.heal().unwrap(), "");
    drop(container);
    for target in [target, second] {
        node.unmount(&target).success();
    }
}

fn on(release: &str) {
    let filter = without_calls_from(first_after(release));
    with_sandbox(DRIVER, |node| {
        // For this thread, and all that it starts.
        apply_filter(&filter).unwrap();
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        assert!(status.contains("Seccomp:\t2\n"), "{status}");
        let own = pidfd_open(getpid(), PidfdFlags::empty());
        assert_eq!(own.unwrap_err(), rustix::io::Errno::NOSYS);
        volume_lives(node);
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_volume_lives_with_the_system_calls_of_linux_3_10() {
    on("3.10");
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_volume_lives_with_the_system_calls_of_linux_4_19() {
    on("4.19");
}
