//! The bounds of the processes of a volume: what they must not fall below, and what they must not exceed.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;
use std::fs::{File, read_to_string, remove_file, write};
use std::os::unix::fs::FileExt as _;
use support::store::PATH_STYLE;
use support::{Fault, PATIENCE, Pidfd, Settings, with_sandbox, with_settings};

const DRIVER: &str = env!("CARGO_BIN_EXE_oss");
/// Open files on one volume: so many different ones, each so often. s3fs and ossfs need a descriptor for
/// each different one, and s3fs looks through all of them at each open(2), so that they are not more.
const FILES: usize = 1100;
const TIMES: usize = 10;

/// Sets the soft limit of open files, which what is started from here inherits.
fn set_open_files(soft: Option<u64>) {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert!(
        hard > (FILES * TIMES + 100) as u64,
        "only {hard} files may be open here"
    );
    setrlimit(Resource::RLIMIT_NOFILE, soft.unwrap_or(hard), hard).unwrap();
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn thousands_of_files_are_open_whatever_soft_limit_the_driver_was_started_with() {
    with_sandbox(DRIVER, |node| {
        for n in 0..FILES {
            node.store.put("docker", &format!("f{n}"), n.to_string());
        }
        let target = node.target("u1", "oss1");
        // A service's.
        set_open_files(Some(1024));
        let options =
            json!({"otherOpts": format!("-o {PATH_STYLE} -o max_stat_cache_size=100000")});
        node.mount(&target, &node.options(options)).success();
        set_open_files(None);
        let open = |n: usize| File::open(target.join(format!("f{}", n % FILES))).unwrap();
        let files: Vec<File> = (0..FILES * TIMES).map(open).collect();
        assert!(files.len() > 10_000);
        for n in (0..files.len()).rev().step_by(100) {
            let mut bytes = [0; 8];
            let length = files[n].read_at(&mut bytes, 0).unwrap();
            assert_eq!(bytes[..length], *(n % FILES).to_string().as_bytes());
        }
        drop(files);
        node.unmount(&target).success();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn the_kernel_ends_ossfs_before_the_process_that_keeps_the_mount() {
    // As from kubelet, whose own score is none that a volume's processes are to have.
    write("/proc/self/oom_score_adj", "300").unwrap();
    // Without CAP_SYS_RESOURCE it cannot be lowered further.
    let may_lower = read_to_string("/proc/self/status").unwrap();
    let may_lower = may_lower
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .map(|set| u64::from_str_radix(set.trim(), 16).unwrap())
        .is_some_and(|set| set & 1 << 24 != 0);
    with_sandbox(DRIVER, |node| {
        let target = node.target("u1", "oss1");
        node.mount(&target, &node.options(json!({}))).success();
        let score = |pid: i32| {
            let text = read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
            text.trim().parse::<i32>().unwrap()
        };
        let kept = if may_lower { -500 } else { 0 };
        for part in ["--parent", "--child"] {
            for pid in node.servers(part) {
                assert_eq!(score(pid), kept, "{part}");
            }
        }
        assert_eq!(score(node.daemon()), 0);
        node.unmount(&target).success();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn no_second_probe_is_started_while_one_is_stuck() {
    let settings = Settings::config(json!({"mountTimeoutSeconds": 1}));
    with_settings(DRIVER, &settings, |node| {
        let options = node.options(json!({"relay": "false"}));
        let (first, second) = (node.target("u1", "oss1"), node.target("u2", "oss1"));
        node.mount(&first, &options).success();
        let volumes = node.state_directory().join("volumes");
        let volume = volumes.read_dir().unwrap().next().unwrap().unwrap().path();
        // Without the relay nobody answers for an ossfs that has taken a request, and who has sent it cannot
        // be killed.
        let fault = node.store.inject("docker", Fault::Hang);
        let probes = || {
            node.processes(&format!(
                "oss-probe\0{{\"directory\":\"{}",
                volume.display()
            ))
        };
        let mut stuck = Vec::new();
        for _ in 0..3 {
            let _ = remove_file(volume.join("probed"));
            let answer = node.mount(&second, &options);
            assert!(
                answer.failure().contains("has not answered"),
                "{}",
                answer.message
            );
            let now = probes();
            assert_eq!(now.len(), 1, "{now:?}");
            stuck.push(now[0]);
        }
        stuck.dedup();
        assert_eq!(stuck.len(), 1, "{stuck:?}");
        node.store.remove_fault(fault);
        assert!(Pidfd::wait_for_end(stuck[0], PATIENCE));
        node.mount(&second, &options).success();
        for target in [&first, &second] {
            node.unmount(target).success();
        }
    });
}
