//! The bounds of the processes of a volume: what they must not fall below, and what they must not exceed.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use serde_json::json;
use std::fs::{read_to_string, write};
use support::with_sandbox;

const DRIVER: &str = env!("CARGO_BIN_EXE_oss");
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
