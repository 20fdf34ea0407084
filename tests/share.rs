//! Many Pods at once: one daemon a volume, and nothing lost, left over or falsely reported however
//! they come and go.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::{Fault, PATIENCE, Pidfd, Sandbox, Settings, wait_until, with_sandbox, with_settings};

const DRIVER: &str = env!("CARGO_BIN_EXE_oss");

/// Memory of the processes that is no file's, in KiB.
fn memory(pids: &[i32]) -> u64 {
    pids.iter()
        .map(|pid| {
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
            let mut lines = rollup.lines();
            let line = lines.find(|line| line.starts_with("Anonymous:")).unwrap();
            let number = line.split_whitespace().nth(1).unwrap();
            number.parse::<u64>().unwrap()
        })
        .sum()
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_hundred_pods_on_one_volume_have_one_daemon_and_its_memory() {
    with_sandbox(DRIVER, |node| {
        let targets: Vec<_> = (0..100)
            .map(|n| node.target(&format!("u{n}"), "pv-oss"))
            .collect();
        let options = node.options(json!({}));
        node.mount(&targets[0], &options).success();
        let servers = || [node.servers("--parent"), node.servers("--child")].concat();
        let alone = (memory(&node.daemons()), memory(&servers()));
        node.store.clear_requests();
        std::thread::scope(|scope| {
            for target in &targets[1..] {
                let (kubelet, options) = (&node.kubelet, &options);
                scope.spawn(move || kubelet.mount(target, options).success());
            }
        });
        assert_eq!((node.daemons().len(), servers().len()), (1, 2));
        let together = (memory(&node.daemons()), memory(&servers()));
        // What the first work of its threads costs ossfs, and a few requests under way the other.
        assert!(
            together.0 <= alone.0 + 8192 && together.1 <= alone.1 + 1024,
            "{alone:?} KiB became {together:?} KiB"
        );
        for target in &targets {
            assert!(target.join(".").read_dir().is_ok());
            node.unmount(target).success();
        }
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn volumes_that_are_not_to_be_shared_have_a_daemon_each() {
    with_sandbox(DRIVER, |node| {
        let targets = [node.target("u1", "v"), node.target("u2", "v")];
        for (config, more) in [
            (json!({}), json!({"shareMount": "false"})),
            (json!({"shareMounts": false}), json!({})),
            (json!({"shareMounts": false}), json!({"shareMount": "true"})),
        ] {
            node.configure(config.as_object().unwrap());
            for target in &targets {
                node.mount(target, &node.options(more.clone())).success();
            }
            assert_eq!(node.daemons().len(), 2, "{config} {more}");
            for target in &targets {
                node.unmount(target).success();
            }
        }
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_store_that_falls_silent_for_longer_than_all_deadlines_and_comes_back() {
    let settings = Settings::config(json!({
        "mountTimeoutSeconds": 3, "unmountTimeoutSeconds": 3, "hungAfterSeconds": 1,
    }));
    with_settings(DRIVER, &settings, |node| {
        let [one, two, third] = ["u1", "u2", "u3"].map(|pod| node.target(pod, "v"));
        for target in [&one, &two] {
            node.mount(target, &node.options(json!({}))).success();
        }
        fs::write(one.join("before"), "written").unwrap();
        let daemon = node.daemon();
        let fault = node.store.inject_everywhere(Fault::Hang);
        let since = Instant::now();
        let options = node.options(json!({"shareMount": "false"}));
        let (mounted, healed, unmounted, waits, daemons, read) = std::thread::scope(|scope| {
            let reader = scope.spawn(|| fs::read(two.join("before")));
            let mounted = node.mount(&third, &options);
            let (healed, unmounted) = (node.heal(), node.unmount(&one));
            let (waits, daemons) = (!reader.is_finished(), node.daemons());
            node.store.remove_fault(fault);
            let read = reader.join().unwrap();
            (mounted, healed, unmounted, waits, daemons, read)
        });
        mounted.failure();
        assert_eq!(healed.unwrap(), "", "nothing is to be healed");
        unmounted.success();
        assert!(waits, "a reader waits for the store");
        assert_eq!(daemons, [daemon], "a silent store is no reason");
        assert_eq!(read.unwrap(), b"written");
        assert!(since.elapsed() < Duration::from_secs(100), "{}", node.log());
        assert_eq!(node.store.object("docker", "before").unwrap(), b"written");
        node.unmount(&two).success();
    });
}

/// Numbers that do not repeat and can be had again from the seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).unwrap()
    }
}

/// One Pod's volume: where it is mounted, what was last written through it.
struct Pod {
    target: PathBuf,
    options: Value,
    file: String,
}

/// Calls the driver and kills it after a while, which is the number of times that it let us look.
fn killed_call(node: &Sandbox, args: &[&str], looks: usize) {
    let mut child = Command::new(DRIVER)
        .args(args)
        .envs(node.kubelet.environment.iter().cloned())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    for _ in 0..looks {
        if child.try_wait().unwrap().is_some() {
            return;
        }
        std::thread::yield_now();
    }
    let _ = child.kill();
    child.wait().unwrap();
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn pods_that_come_go_and_are_killed_at_random_lose_nothing_and_leave_nothing() {
    let seconds = std::env::var("OSS_TEST_SOAK_SECONDS").map_or(20, |text| text.parse().unwrap());
    let seed = std::env::var("OSS_TEST_SEED").map_or(0x0551_2026, |text| text.parse().unwrap());
    with_sandbox(DRIVER, |node| {
        let mut dice = Dice(seed);
        let pods: Vec<Pod> = (0..200)
            .map(|n| {
                let path = format!("/v{}", n % 20);
                node.store.put("docker", &format!("{}/", &path[1..]), "");
                Pod {
                    target: node.target(&format!("pod{n}"), "v"),
                    options: node.options(json!({"path": path})),
                    file: format!("file{n}"),
                }
            })
            .collect();
        let mut mounted: BTreeMap<usize, String> = BTreeMap::new();
        let end = Instant::now() + Duration::from_secs(seconds);
        let mut rounds = 0;
        while Instant::now() < end {
            rounds += 1;
            let n = dice.roll(pods.len());
            let pod = &pods[n];
            let (target, options) = (pod.target.to_str().unwrap(), pod.options.to_string());
            match (dice.roll(10), mounted.contains_key(&n)) {
                // A daemon dies, and nothing is to be healed.
                (0, _) => {
                    let daemons = node.daemons();
                    if !daemons.is_empty() {
                        let pid = daemons[dice.roll(daemons.len())];
                        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
                        assert!(Pidfd::wait_for_end(pid, PATIENCE));
                        assert_eq!(
                            node.heal().as_deref(),
                            Ok(""),
                            "seed {seed}, round {rounds}"
                        );
                    }
                }
                (1, true) => {
                    killed_call(node, &["unmount", target], dice.roll(3000));
                    node.unmount(&pod.target).success();
                    mounted.remove(&n);
                }
                (2, false) => {
                    fs::create_dir_all(&pod.target).unwrap();
                    killed_call(node, &["mount", target, &options], dice.roll(20000));
                    node.unmount(&pod.target).success();
                }
                (_, true) => {
                    node.unmount(&pod.target).success();
                    mounted.remove(&n);
                }
                (_, false) => {
                    node.mount(&pod.target, &pod.options).success();
                    let content = format!("{rounds}");
                    fs::write(pod.target.join(&pod.file), &content).unwrap();
                    let key = format!("v{}/{}", n % 20, pod.file);
                    assert_eq!(
                        node.store.object("docker", &key).unwrap(),
                        content.as_bytes()
                    );
                    mounted.insert(n, content);
                }
            }
            // A fork of one, on its way to another program, is seen as one more.
            wait_until("one daemon a volume", || node.daemons().len() <= 20);
        }
        for (n, content) in &mounted {
            let found = fs::read_to_string(pods[*n].target.join(&pods[*n].file));
            assert_eq!(found.unwrap(), *content, "seed {seed}, pod {n}");
            node.unmount(&pods[*n].target).success();
        }
        assert!(rounds > 20, "{rounds} rounds");
    });
}
