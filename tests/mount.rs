//! Buckets that are really mounted: s3fs on a real object store, called as kubelet calls.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};
use std::process::Command;
use std::time::Duration;
use support::{PATIENCE, Pidfd, Settings, with_sandbox, with_settings};

const DRIVER: &str = env!("CARGO_BIN_EXE_oss");

/// A megabyte and some of bytes that do not repeat.
fn bytes(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[0]
        })
        .collect()
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn what_is_written_is_in_the_store_and_unmount_leaves_nothing() {
    with_sandbox(DRIVER, |node| {
        let target = node.target("u1", "oss1");
        node.store.put("docker", "there", "before");
        node.mount(&target, &node.options(json!({}))).success();
        assert_eq!(fs::read(target.join("there")).unwrap(), b"before");
        fs::create_dir(target.join("dir")).unwrap();
        fs::write(target.join("dir/file"), "hello").unwrap();
        assert_eq!(
            fs::read_to_string(target.join("dir/file")).unwrap(),
            "hello"
        );
        node.assert_no_secret();
        node.unmount(&target).success();
        assert_eq!(
            node.store.object("docker", "dir/file").as_deref(),
            Some(&b"hello"[..])
        );
        assert!(!target.exists());
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_large_write_right_before_unmount_is_complete() {
    with_sandbox(DRIVER, |node| {
        let target = node.target("u1", "oss1");
        let content = bytes(48 << 20);
        node.mount(&target, &node.options(json!({}))).success();
        fs::write(target.join("large"), &content).unwrap();
        node.unmount(&target).success();
        assert!(
            node.store
                .object("docker", "large")
                .is_some_and(|stored| stored == content)
        );
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_file_still_open_at_unmount_reaches_the_store_after_it() {
    let settings = Settings::config(json!({"unmountTimeoutSeconds": 2}));
    with_settings(DRIVER, &settings, |node| {
        let target = node.target("u1", "oss1");
        node.mount(&target, &node.options(json!({}))).success();
        let mut file = fs::File::create(target.join("late")).unwrap();
        file.write_all(b"written").unwrap();
        let daemons = node.daemons();
        node.unmount(&target).success();
        // Left to finish, not killed; its key file is gone all the same.
        assert_eq!(node.daemons(), daemons, "{}", node.log());
        assert_eq!(node.key_files().len(), 0);
        assert!(
            node.log().contains("still uploads to the bucket"),
            "{}",
            node.log()
        );
        drop(file);
        let written = node
            .store
            .wait_for_request(Duration::from_secs(60), |request| {
                request.method == "PUT"
                    && request.key.contains("late")
                    && request.status == Some(200)
            });
        assert!(written);
        for pid in daemons {
            assert!(Pidfd::wait_for_end(pid, PATIENCE));
        }
        assert_eq!(
            node.store.object("docker", "late").as_deref(),
            Some(&b"written"[..])
        );
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn mount_and_unmount_may_be_called_twice() {
    with_sandbox(DRIVER, |node| {
        let target = node.target("u1", "oss1");
        let options = node.options(json!({}));
        node.mount(&target, &options).success();
        let (mounts, daemons) = (node.mounts(), node.daemons());
        node.mount(&target, &options).success();
        assert_eq!((node.mounts(), node.daemons()), (mounts, daemons));
        node.unmount(&target).success();
        node.unmount(&target).success();
        fs::create_dir_all(&target).unwrap();
        node.unmount(&target).success();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn pods_with_the_same_volume_share_a_daemon_until_the_last_one_goes() {
    with_sandbox(DRIVER, |node| {
        let targets: Vec<_> = (0..4)
            .map(|n| node.target(&format!("u{n}"), "pv-oss"))
            .collect();
        for target in &targets {
            node.mount(target, &node.options(json!({}))).success();
        }
        assert_eq!(node.daemons().len(), 1);
        for (n, target) in targets.iter().enumerate() {
            fs::write(target.join(format!("f{n}")), "x").unwrap();
            node.unmount(target).success();
        }
        assert_eq!(node.store.keys("docker"), ["f0", "f1", "f2", "f3"]);
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn two_key_pairs_on_one_bucket_are_two_volumes() {
    with_sandbox(DRIVER, |node| {
        node.store.create_bucket("other");
        node.store.add_key("otherkey", "sEcrEtOfTheOtherTenant");
        node.watch_secret("sEcrEtOfTheOtherTenant");
        let (one, two) = (node.target("u1", "a"), node.target("u2", "b"));
        node.mount(&one, &node.options(json!({}))).success();
        let other = json!({"akId": "otherkey", "akSecret": "sEcrEtOfTheOtherTenant"});
        node.mount(&two, &node.options(other)).success();
        node.assert_no_secret();
        assert_eq!(node.daemons().len(), 2);
        assert_eq!(node.key_files().len(), 2);
        node.store.clear_requests();
        fs::write(two.join("by-two"), "x").unwrap();
        let users: Vec<_> = node
            .store
            .requests()
            .iter()
            .map(|r| r.key_id.clone())
            .collect();
        assert!(
            !users.is_empty() && users.iter().all(|user| user == "otherkey"),
            "{users:?}"
        );
        assert_eq!(fs::read(one.join("by-two")).unwrap(), b"x");
        node.unmount(&one).success();
        assert_eq!(fs::read(two.join("by-two")).unwrap(), b"x");
        node.unmount(&two).success();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn twenty_mounts_and_unmounts_at_once() {
    with_sandbox(DRIVER, |node| {
        // Four Pods on each of five volumes, and each of them its own.
        let calls: Vec<_> = (0..20)
            .map(|n| {
                let path = format!("/dir{}", n % 5);
                node.store.put("docker", &format!("{}/", &path[1..]), "");
                let options = node.options(json!({"path": path}));
                (node.target(&format!("u{n}"), "v"), options)
            })
            .collect();
        let kubelet = &node.kubelet;
        for _ in 0..2 {
            std::thread::scope(|scope| {
                for (n, (target, options)) in calls.iter().enumerate() {
                    scope.spawn(move || {
                        kubelet.mount(target, options).success();
                        fs::write(target.join(format!("f{n}")), n.to_string()).unwrap();
                    });
                }
            });
            assert_eq!(node.daemons().len(), 5);
            node.assert_no_secret();
            std::thread::scope(|scope| {
                for (target, _) in &calls {
                    scope.spawn(move || kubelet.unmount(target).success());
                }
            });
            for n in 0..20 {
                let key = format!("dir{}/f{n}", n % 5);
                assert_eq!(
                    node.store.object("docker", &key),
                    Some(n.to_string().into_bytes())
                );
            }
        }
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn mounting_and_unmounting_one_volume_by_turns_at_once() {
    with_sandbox(DRIVER, |node| {
        let options = node.options(json!({}));
        let kubelet = &node.kubelet;
        std::thread::scope(|scope| {
            for n in 0..8 {
                let (target, options) = (node.target(&format!("u{n}"), "v"), &options);
                scope.spawn(move || {
                    for round in 0..5 {
                        kubelet.mount(&target, options).success();
                        fs::write(target.join(format!("f{n}")), round.to_string()).unwrap();
                        kubelet.unmount(&target).success();
                    }
                });
            }
        });
        for n in 0..8 {
            assert_eq!(
                node.store.object("docker", &format!("f{n}")),
                Some(b"4".to_vec())
            );
        }
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn read_only_at_ossfs_and_at_the_bind() {
    with_sandbox(DRIVER, |node| {
        let (read_only, writable) = (node.target("u1", "a"), node.target("u2", "b"));
        node.store.put("docker", "there", "x");
        node.mount(
            &read_only,
            &node.options(json!({"kubernetes.io/readwrite": "ro"})),
        )
        .success();
        node.mount(&writable, &node.options(json!({}))).success();
        assert_eq!(node.daemons().len(), 2);
        assert_eq!(fs::read(read_only.join("there")).unwrap(), b"x");
        let error = fs::write(read_only.join("new"), "x").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
        fs::write(writable.join("new"), "x").unwrap();
        assert!(
            node.mount_at(&read_only)
                .options
                .starts_with("ro,nosuid,nodev")
        );
        assert!(
            node.mount_at(&writable)
                .options
                .starts_with("rw,nosuid,nodev")
        );
        let super_options: Vec<_> = node
            .mounts()
            .iter()
            .map(|mount| mount.super_options[..2].to_owned())
            .collect();
        assert_eq!(
            super_options.iter().filter(|o| *o == "ro").count(),
            2,
            "{super_options:?}"
        );
        node.unmount(&read_only).success();
        node.unmount(&writable).success();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_sub_directory_is_the_root_of_its_volume() {
    with_sandbox(DRIVER, |node| {
        let target = node.target("u1", "v");
        node.store.put("docker", "a b/", "");
        node.store.put("docker", "a b/in", "x");
        node.store.put("docker", "out", "y");
        node.mount(&target, &node.options(json!({"path": "/a b/"})))
            .success();
        let names: Vec<_> = fs::read_dir(&target)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(names, ["in"]);
        node.unmount(&target).success();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn fs_group_and_identity_options_decide_who_owns_the_files() {
    with_sandbox(DRIVER, |node| {
        let target = node.target("u1", "v");
        node.store.put("docker", "file", "x");
        for (more, uid, gid, mode) in [
            (
                json!({"kubernetes.io/mounterArgs.FsGroup": "2000"}),
                0,
                2000,
                0o777,
            ),
            (
                json!({"kubernetes.io/fsGroup": "2000", "otherOpts": "-o gid=3000,umask=0027"}),
                0,
                3000,
                0o750,
            ),
            (
                json!({"otherOpts": "-ouid=1000 -ogid=1001 -oumask=0077"}),
                1000,
                1001,
                0o700,
            ),
        ] {
            node.store.clear_requests();
            node.mount(&target, &node.options(more)).success();
            let meta = fs::metadata(target.join("file")).unwrap();
            assert_eq!(
                (meta.uid(), meta.gid(), meta.mode() & 0o777),
                (uid, gid, mode)
            );
            // fsGroup in no time: nothing in the bucket is changed.
            assert!(node.store.requests().iter().all(|r| r.method != "PUT"));
            node.unmount(&target).success();
        }
    });
}

/// kubelet runs `runAsUser: 1000, runAsGroup: 1000, fsGroup: 2000` with 2000 as a supplementary group
/// alone, which ossfs does not see: it reads the groups of the node's /etc/group.
#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_process_with_the_fs_group_as_a_supplementary_group_reads_and_writes() {
    with_sandbox(DRIVER, |node| {
        let target = node.target("u1", "v");
        node.store.put("docker", "file", "content");
        let options = node.options(json!({"kubernetes.io/mounterArgs.FsGroup": "2000"}));
        node.mount(&target, &options).success();
        let as_the_pod = |args: &[&str]| {
            Command::new("setpriv")
                .args(["--reuid=1000", "--regid=1000", "--groups=2000"])
                .args(args)
                .current_dir(&target)
                .output()
                .unwrap()
        };
        let read = as_the_pod(&["cat", "file"]);
        assert_eq!(read.stdout, b"content", "{read:?}");
        let written = as_the_pod(&["cp", "file", "copy"]);
        assert!(written.status.success(), "{written:?}");
        node.unmount(&target).success();
        assert_eq!(node.store.object("docker", "copy").unwrap(), b"content");
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_secret_wins_over_the_options_and_may_end_in_a_newline() {
    use base64::Engine as _;
    with_sandbox(DRIVER, |node| {
        let target = node.target("u1", "v");
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let secret = encode(&format!("{}\n", node.secret));
        node.watch_secret(&secret);
        let options = node.options(json!({
            "akId": "other", "akSecret": "other",
            "kubernetes.io/secret/AccessKeyId": encode(&node.key_id),
            "kubernetes.io/secret/accesskeysecret": secret,
        }));
        node.mount(&target, &options).success();
        node.assert_no_secret();
        node.unmount(&target).success();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn the_node_key_pair_serves_the_buckets_that_the_configuration_lists() {
    with_sandbox(DRIVER, |node| {
        let (id, secret) = (node.path("akId"), node.path("akSecret"));
        fs::write(&id, format!("{}\n", node.key_id)).unwrap();
        fs::write(&secret, format!("{}\n", node.secret)).unwrap();
        let target = node.target("u1", "v");
        let options = node.options(json!({"akId": "", "akSecret": ""}));
        let message = node.mount(&target, &options).failure().to_owned();
        assert!(
            message.contains("set akId and akSecret, or a secretRef"),
            "{message}"
        );
        for (buckets, allowed) in [(json!(["other"]), false), (json!(["docker"]), true)] {
            let config = json!({"nodeCredentials": {"akIdFile": id, "akSecretFile": secret, "buckets": buckets}});
            node.configure(config.as_object().unwrap());
            let answer = node.mount(&target, &options);
            assert_eq!(answer.message.is_empty(), allowed, "{}", answer.message);
        }
        node.unmount(&target).success();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_mount_asks_as_little_of_a_full_bucket_as_of_an_empty_one() {
    with_sandbox(DRIVER, |node| {
        let target = node.target("u1", "v");
        let options = node.options(json!({}));
        let mut counts = Vec::new();
        for objects in [0, 5000] {
            for n in 0..objects {
                node.store.put("docker", &format!("object{n}"), "x");
            }
            node.store.clear_requests();
            node.mount(&target, &options).success();
            counts.push(node.store.requests().len());
            node.unmount(&target).success();
        }
        assert_eq!(
            counts[0], counts[1],
            "requests for an empty and for a full bucket"
        );
        node.mount(&target, &options).success();
        assert_eq!(fs::read_dir(&target).unwrap().count(), 5000);
        node.unmount(&target).success();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn the_options_of_the_node_stand_before_those_of_the_volume() {
    let settings = Settings::config(json!({"defaultOptions": ["uid=7", "umask=0022"]}));
    with_settings(DRIVER, &settings, |node| {
        let target = node.target("u1", "v");
        node.store.put("docker", "file", "x");
        node.mount(&target, &node.options(json!({"otherOpts": "-o uid=8"})))
            .success();
        let meta = fs::metadata(target.join("file")).unwrap();
        assert_eq!((meta.uid(), meta.mode() & 0o777), (8, 0o755));
        node.unmount(&target).success();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn version_four_signatures_carry_the_region() {
    with_sandbox(DRIVER, |node| {
        let target = node.target("u1", "v");
        let options = node.options(json!({"sigVersion": "v4", "region": "us-east-1"}));
        node.mount(&target, &options).success();
        node.unmount(&target).success();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_daemon_has_a_session_and_an_environment_of_its_own_and_nothing_inherited() {
    with_sandbox(DRIVER, |node| {
        let target = node.target("u1", "v");
        let mut kubelet = node.kubelet.clone();
        kubelet
            .environment
            .push(("AWS_ACCESS_KEY_ID".into(), "x".into()));
        kubelet.mount(&target, &node.options(json!({}))).success();
        let pid = node.daemons()[0];
        let environment = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
        for variable in environment.split_terminator('\0') {
            let (name, _) = variable.split_once('=').unwrap();
            // The shell of the stand-in sets PWD.
            assert!(["HOME", "PATH", "PWD", "TZ"].contains(&name), "{variable}");
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let session = stat
            .rsplit_once(") ")
            .unwrap()
            .1
            .split(' ')
            .nth(3)
            .unwrap()
            .to_owned();
        let own = nix::unistd::getsid(None).unwrap();
        assert_ne!(session, own.to_string());
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let core = limits.lines().find(|l| l.starts_with("Max core")).unwrap();
        assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
        for fd in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
            let link = fs::read_link(fd.unwrap().path()).unwrap();
            let link = link.to_string_lossy();
            let own = [
                "/dev/null",
                "/dev/fuse",
                "pipe:",
                "socket:",
                "eventpoll",
                "eventfd",
                "/dev/urandom",
                "/etc/mime.types",
            ];
            assert!(own.iter().any(|known| link.contains(known)), "{link}");
        }
        node.unmount(&target).success();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_node_that_is_drained_mounts_nothing_and_still_unmounts_and_heals() {
    with_sandbox(DRIVER, |node| {
        let [kept, refused] = ["u1", "u2"].map(|pod| node.target(pod, "oss1"));
        let options = node.options(json!({}));
        node.mount(&kept, &options).success();
        let drain = node.state_directory().join("drain");
        fs::write(&drain, "").unwrap();
        let answer = node.mount(&refused, &options);
        let message = answer.failure();
        assert!(message.contains("being removed"), "{message}");
        kill(Pid::from_raw(node.daemons()[0]), Signal::SIGKILL).unwrap();
        node.heal().unwrap();
        fs::write(kept.join("file"), "x").unwrap();
        node.unmount(&kept).success();
        fs::remove_file(&drain).unwrap();
        node.assert_clean();
        node.mount(&refused, &options).success();
        node.unmount(&refused).success();
    });
}

/// What README says about `path`.
#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_path_that_does_not_exist_mounts_empty_and_is_made_by_the_first_write() {
    with_sandbox(DRIVER, |node| {
        let target = node.target("u1", "v");
        node.store.put("docker", "not/here", "x");
        let options = node.options(json!({"path": "/not/there"}));
        node.mount(&target, &options).success();
        assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
        assert_eq!(node.store.object("docker", "not/there/"), None);
        fs::write(target.join("file"), "x").unwrap();
        node.unmount(&target).success();
        let written = node.store.object("docker", "not/there/file");
        assert_eq!(written.as_deref(), Some(&b"x"[..]));
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn proxy_and_certificates_come_from_the_node_configuration_alone() {
    with_sandbox(DRIVER, |node| {
        let target = node.target("u1", "v");
        let (bundle, link) = (node.path("ca.pem"), node.path("link.pem"));
        fs::write(&bundle, "certificate").unwrap();
        fs::set_permissions(&bundle, PermissionsExt::from_mode(0o644)).unwrap();
        symlink(&bundle, &link).unwrap();
        // A volume's own keys for them do not exist.
        let options = json!({
            "httpsProxy": "http://evil.example:1", "caBundle": "/etc/passwd", "noProxy": "*",
        });
        let environment = || {
            let [pid] = node.daemons()[..] else {
                panic!("one daemon is expected");
            };
            let text = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
            let names = ["https_proxy=", "no_proxy=", "CURL_CA_BUNDLE="];
            let is_one = |text: &&str| names.iter().any(|name| text.starts_with(name));
            let found: Vec<String> = text.split('\0').filter(is_one).map(str::to_owned).collect();
            let bundle = fs::read_to_string(format!("/proc/{pid}/root{}", bundle.display()));
            (found, bundle.ok())
        };
        node.mount(&target, &node.options(options.clone()))
            .success();
        assert_eq!(environment(), (Vec::new(), None));
        node.unmount(&target).success();

        let config = json!({
            "httpsProxy": "http://proxy.example:3128",
            "noProxy": ["127.0.0.1", ".internal.example"],
            "caBundle": link,
        });
        node.configure(config.as_object().unwrap());
        node.mount(&target, &node.options(options.clone()))
            .success();
        let expected = vec![
            format!("CURL_CA_BUNDLE={}", bundle.display()),
            "https_proxy=http://proxy.example:3128".to_owned(),
            "no_proxy=127.0.0.1,.internal.example".to_owned(),
        ];
        let (mut found, content) = environment();
        found.sort_unstable();
        assert_eq!(found, expected);
        assert_eq!(content.as_deref(), Some("certificate"));
        node.unmount(&target).success();

        for (mode, says) in [
            (0o600, "mode 0644 is expected"),
            (0o666, "it is world-writable"),
        ] {
            fs::set_permissions(&bundle, PermissionsExt::from_mode(mode)).unwrap();
            let answer = node.mount(&target, &node.options(json!({})));
            let message = answer.failure();
            assert!(
                message.contains("(caBundle of the node configuration)"),
                "{message}"
            );
            assert!(message.contains(says), "{message}");
        }
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_label_of_the_node_configuration_is_for_nodes_with_selinux() {
    let label = "system_u:object_r:container_file_t:s0";
    let settings = Settings::config(json!({"seLinuxContext": label}));
    with_settings(DRIVER, &settings, |node| {
        let target = node.target("u1", "oss1");
        node.mount(&target, &node.options(json!({}))).success();
        let is_on = fs::read_to_string("/proc/filesystems")
            .unwrap()
            .contains("selinuxfs");
        let table = fs::read_to_string("/proc/thread-self/mounts").unwrap();
        // A kernel without SELinux refuses a mount with a label.
        assert_eq!(table.contains(label), is_on);
        assert_eq!(node.log().contains("SELinux is off"), !is_on);
        node.unmount(&target).success();
    });
}
