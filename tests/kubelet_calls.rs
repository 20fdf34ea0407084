//! Every call that was recorded of a real kubelet, replayed as it was: with its options, against a
//! store that answers at the endpoints they name. Only TARGET's kubelet root is another.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use serde_json::Value;
use std::path::Path;
use support::{Settings, Status, with_settings};

const DRIVER: &str = env!("CARGO_BIN_EXE_oss");
const CALLS: &str = include_str!("data/kubelet-calls/v1.36.2.jsonl");

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn every_recorded_call_is_answered_as_it_should_be() {
    let names = [
        "oss-cn-hangzhou.aliyuncs.com",
        "oss-cn-hangzhou-internal.aliyuncs.com",
    ];
    let settings = Settings {
        hosts: Some((
            "127.0.0.1:80".parse().unwrap(),
            names.map(str::to_owned).to_vec(),
        )),
        ..Settings::default()
    };
    with_settings(DRIVER, &settings, |node| {
        node.store.add_key("testAkId", "testAkSecret");
        node.store.add_key("secretAkId", "secretAkSecret+/=");
        node.watch_secret("testAkSecret");
        node.watch_secret("secretAkSecret+/=");
        node.store.put("docker", "there", "x");
        let mut replayed = 0;
        for line in CALLS.lines() {
            let call: Value = serde_json::from_str(line).unwrap();
            let argv: Vec<&str> = call["argv"]
                .as_array()
                .unwrap()
                .iter()
                .map(|a| a.as_str().unwrap())
                .collect();
            replayed += 1;
            match argv[..] {
                ["init"] => assert_eq!(node.kubelet.call(&argv).status, Status::Success),
                ["mount", recorded, json] => {
                    let target = here(node, recorded);
                    let options: Value = serde_json::from_str(json).unwrap();
                    let answer = node.mount(&target, &options);
                    if recorded.ends_with("oss4") {
                        // This key has blanks and quotes, which no passwd file can hold.
                        assert!(
                            answer.failure().contains("\"akSecret\": contains a space"),
                            "{}",
                            answer.message
                        );
                    } else {
                        answer.success();
                        assert_eq!(std::fs::read(target.join("there")).unwrap(), b"x");
                        check(&target, &options);
                    }
                }
                ["unmount", recorded] => {
                    let target = here(node, recorded);
                    node.unmount(&target).success();
                    assert!(!target.exists());
                }
                _ => panic!("a call that no test knows: {line}"),
            }
        }
        assert_eq!(replayed, CALLS.lines().count());
        assert_eq!(replayed, 11);
    });
}

/// The recorded target under this node's kubelet root.
fn here(node: &support::Sandbox, recorded: &str) -> std::path::PathBuf {
    let below = recorded.strip_prefix("/var/lib/kubelet/").unwrap();
    node.path("kubelet").join(below)
}

/// Checks what the options say of the mounted volume.
fn check(target: &Path, options: &Value) {
    use std::os::unix::fs::MetadataExt as _;
    let written = std::fs::write(target.join("new"), "x");
    match options["kubernetes.io/readwrite"].as_str() {
        Some("ro") => assert!(written.is_err()),
        _ => written.unwrap(),
    }
    if let Some(group) = options["kubernetes.io/mounterArgs.FsGroup"].as_str() {
        let meta = std::fs::metadata(target.join("there")).unwrap();
        assert_eq!(meta.gid().to_string(), group);
    }
}
