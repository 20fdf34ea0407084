//! The driver on a node with a real systemd: each volume is a unit, outlives kubelet, and goes on
//! when its ossfs, or the unit's own process, is killed.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use alicloud_oss::serve::client;
use alicloud_oss::serve::protocol::{State, Status};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::{Answer, Cluster, Container, EndOnDrop, PATIENCE, Propagation, node, wait_until};

const DRIVER: &str = env!("CARGO_BIN_EXE_oss");
const SECRET: &str = "sEcrEtOnSystemd";
/// How long an ossfs serves between two kills: the successor of one that has served for less is held
/// back, later and later.
const SERVICE: Duration = Duration::from_millis(300);

fn boot() -> Cluster {
    Cluster::boot(Path::new(DRIVER), SECRET)
}

/// The status of the only volume, once it is served.
#[track_caller]
fn served(cluster: &Cluster) -> Status {
    let status = client::wait(&cluster.volume(), Instant::now() + PATIENCE).unwrap();
    assert_eq!(status.state, State::Served);
    status
}

/// The ossfs of the only volume, once there is one that serves, in the node's own numbers.
#[track_caller]
fn ossfs(cluster: &Cluster) -> String {
    served(cluster).daemon.unwrap().to_string()
}

fn read(cluster: &Cluster, path: &Path) -> std::io::Result<Vec<u8>> {
    fs::read(cluster.node.path(path))
}

#[test]
#[ignore = "needs root and systemd-nspawn"]
fn daemons_outlive_kubelet_and_leave_with_their_volume() {
    if node::skip() {
        return;
    }
    let cluster = boot();
    let target = cluster.target("u1");
    cluster.mount(&target, &json!({})).success();
    fs::write(cluster.node.path(target.join("file")), "content").unwrap();
    let processes = || [cluster.main_process(), ossfs(&cluster)];
    let before = processes();
    for pid in &before {
        let path = cluster.node.path(format!("/proc/{pid}/cgroup"));
        let cgroup = fs::read_to_string(path).unwrap();
        assert!(
            cgroup.contains("alicloud-oss.slice/alicloud-oss@"),
            "{cgroup}"
        );
        assert!(!cgroup.contains("kubelet"), "{cgroup}");
    }
    for how in ["restart", "stop", "start"] {
        cluster.node.systemctl(&[how, "kubelet"]).unwrap();
        assert_eq!(processes(), before, "{how}");
        assert_eq!(
            read(&cluster, &target.join("file")).unwrap(),
            b"content",
            "{how}"
        );
    }
    // The restarted kubelet asks again.
    cluster.mount(&target, &json!({})).success();
    let second = cluster.target("u2");
    cluster.mount(&second, &json!({})).success();
    assert_eq!(processes(), before);
    cluster.unmount(&target);
    assert_eq!(read(&cluster, &second.join("file")).unwrap(), b"content");
    cluster.unmount(&second);
    assert_eq!(
        cluster.store.object("docker", "file").as_deref(),
        Some(&b"content"[..])
    );
    cluster.assert_clean();
}

#[test]
#[ignore = "needs root and systemd-nspawn"]
fn a_mount_that_fails_carries_the_daemons_own_words_and_leaves_no_unit() {
    if node::skip() {
        return;
    }
    let cluster = boot();
    let target = cluster.target("u1");
    for (more, words) in [
        (json!({"akId": "unknown"}), "invalid credentials"),
        (json!({"bucket": "missing"}), "not found"),
    ] {
        let answer = cluster.mount(&target, &more);
        assert!(answer.failure().contains(words), "{}", answer.message);
        fs::remove_dir(cluster.node.path(&target)).unwrap();
        cluster.assert_clean();
    }
}

/// Programs in containers that read a file again and again.
struct Readers {
    /// Held by each read; whoever writes it has nobody read meanwhile.
    gate: RwLock<()>,
    ended: AtomicBool,
    reads: AtomicUsize,
}

impl Readers {
    /// Reads `path` until the end. Each read succeeds.
    fn read(&self, path: &Path) {
        while !self.ended.load(Ordering::Relaxed) {
            let gate = self.gate.read().unwrap();
            let found = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            assert_eq!(found, b"content", "{}", path.display());
            drop(gate);
            self.reads.fetch_add(1, Ordering::Relaxed);
            // Who waits for the gate has a chance to get it.
            std::thread::yield_now();
        }
    }

    /// Returns once there were as many reads more as `count` readers make in two rounds.
    #[track_caller]
    fn go_on(&self, count: usize) {
        let reads = || self.reads.load(Ordering::Relaxed);
        let before = reads();
        wait_until("readers go on", || reads() >= before + 2 * count);
    }
}

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Ossfs,
    Main,
    Both,
}

#[test]
#[ignore = "needs root and systemd-nspawn"]
fn readers_in_containers_go_on_whatever_is_killed() {
    if node::skip() {
        return;
    }
    let rounds: usize = std::env::var("OSS_TEST_KILLS").map_or(20, |n| n.parse().unwrap());
    let cluster = boot();
    let target = cluster.target("u1");
    cluster.mount(&target, &json!({})).success();
    fs::write(cluster.node.path(target.join("file")), "content").unwrap();
    let containers: Vec<Container> = (0..10)
        .map(|n| {
            let kind = match n % 2 {
                0 => Propagation::Private,
                _ => Propagation::Slave,
            };
            cluster.container(&target, &format!("c{n}"), kind, n % 3 == 0)
        })
        .collect();
    let mounts = || cluster.node.run(&["cat", "/proc/1/mountinfo"]).unwrap();
    let before = mounts();
    let readers = Readers {
        gate: RwLock::default(),
        ended: AtomicBool::new(false),
        reads: AtomicUsize::new(0),
    };
    let victims = [
        (Victim::Ossfs, rounds),
        (Victim::Main, 5),
        (Victim::Both, 5),
    ];
    std::thread::scope(|scope| {
        let _end = EndOnDrop(&readers.ended);
        for container in &containers {
            let (readers, path) = (&readers, container.path("file"));
            scope.spawn(move || readers.read(&path));
        }
        for (victim, rounds) in victims {
            for _ in 0..rounds {
                kill_once(&cluster, &readers, victim);
                readers.go_on(containers.len());
            }
        }
    });
    assert_eq!(mounts(), before);
    drop(containers);
    cluster.unmount(&target);
    cluster.assert_clean();
}

/// Kills `victim`, and checks that nothing else has ended.
fn kill_once(cluster: &Cluster, readers: &Readers, victim: Victim) {
    let (ossfs, main) = (ossfs(cluster), cluster.main_process());
    std::thread::sleep(SERVICE);
    if victim == Victim::Ossfs {
        // Whoever reads at this moment does not notice.
        cluster.kill(&[&ossfs]);
    } else {
        // What the process had in hand may fail: nobody reads.
        let _gate = readers.gate.write().unwrap();
        match victim {
            Victim::Main => cluster.kill(&[&main]),
            // With the process its ossfs ends.
            _ => cluster.kill(&[&ossfs, &main]),
        }
        wait_until("systemd has started another", || {
            let now = cluster.main_process();
            now != main && now != "0"
        });
    }
    let mut status = served(cluster);
    // Asked too early, it may not have noticed the end.
    wait_until("there is another ossfs", || {
        status = served(cluster);
        status.daemon.is_some_and(|pid| pid.to_string() != ossfs)
    });
    match victim {
        Victim::Ossfs => assert_eq!(cluster.main_process(), main),
        _ => assert!(status.restored, "the connection was lost"),
    }
}

#[test]
#[ignore = "needs root and systemd-nspawn"]
fn a_store_that_is_away_when_ossfs_dies_is_waited_for() {
    if node::skip() {
        return;
    }
    let cluster = boot();
    let target = cluster.target("u1");
    cluster.mount(&target, &json!({})).success();
    fs::write(cluster.node.path(target.join("file")), "content").unwrap();
    let container = cluster.container(&target, "c", Propagation::Private, false);
    let (ossfs, main) = (ossfs(&cluster), cluster.main_process());
    // s3fs and ossfs end where the store refuses them, and some versions with status 0.
    cluster.store.restrict("docker", &[]);
    cluster.kill(&[&ossfs]);
    let second = cluster.target("u2");
    let (refused, waits, read_there) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| fs::read(container.path("file")));
        let status = || client::status(&cluster.volume(), Instant::now() + PATIENCE).unwrap();
        wait_until("ossfs is started again and again", || status().starts > 3);
        // What was seen a second ago does not count.
        fs::remove_file(cluster.volume().join("probed")).unwrap();
        // A Pod that comes meanwhile is told, and changes nothing.
        let refused = cluster.mount(&second, &json!({}));
        let waits = !reader.is_finished();
        cluster.store.unrestrict("docker");
        // And one that comes while the next start is held back has it made at once.
        cluster.mount(&second, &json!({})).success();
        (refused, waits, reader.join().unwrap())
    });
    assert!(
        refused.failure().contains("credentials"),
        "{}",
        refused.message
    );
    assert!(waits, "the container's read has not waited");
    assert_eq!(read_there.unwrap(), b"content");
    assert_eq!(read(&cluster, &second.join("file")).unwrap(), b"content");
    assert_eq!(
        cluster.main_process(),
        main,
        "it is not the unit that failed"
    );
    let restarts = cluster.node.property(&cluster.unit(), "NRestarts").unwrap();
    assert_eq!(restarts, "0");
    drop(container);
    cluster.unmount(&second);
    cluster.unmount(&target);
    cluster.assert_clean();
}

#[test]
#[ignore = "needs root and systemd-nspawn"]
fn daemons_of_the_old_driver_are_taken_out_of_kubelets_cgroup() {
    if node::skip() {
        return;
    }
    let cluster = boot();
    let target = cluster.target("u1");
    fs::create_dir_all(cluster.node.path(&target)).unwrap();
    let passwd = cluster.node.path("/etc/passwd-ossfs");
    fs::write(&passwd, format!("docker:key:{SECRET}\n")).unwrap();
    fs::set_permissions(&passwd, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    // As the old driver does it: a daemon that forks off within kubelet's cgroup. And a process that is
    // as in a container, with a name and an argument that it has chosen.
    const STRANGER: &str = "/var/lib/kubelet/pods/u9/volumes/alicloud~oss/v";
    cluster.node.run(&["cp", "/bin/sh", "/run/ossfs"]).unwrap();
    let script = format!(
        "unshare --mount /run/ossfs -c 'while :; do sleep 1000; done' {STRANGER} >/run/stranger 2>&1 &\ns3fs docker {} -ourl={} -opasswd_file=/etc/passwd-ossfs -ouse_path_request_style -oallow_other\necho '{{\"status\":\"Success\"}}' >/run/old.done\n",
        target.display(),
        cluster.store.url()
    );
    fs::write(cluster.node.path("/run/old"), script).unwrap();
    cluster.node.run(&["mkfifo", "/run/old.done"]).unwrap();
    fs::write(cluster.node.path("/run/kubelet.calls"), "/run/old\n").unwrap();
    Answer::parse(&fs::read_to_string(cluster.node.path("/run/old.done")).unwrap()).success();
    fs::write(cluster.node.path(target.join("file")), "content").unwrap();

    // In a group of its own, with the same name and such an argument.
    let stranger = ["/run/ossfs", "-c", "while :; do sleep 1000; done", STRANGER];
    cluster
        .node
        .systemd_run("stranger", &[], &stranger)
        .unwrap();

    let said = cluster.node.run(&["/opt/oss/oss", "adopt"]).unwrap();
    assert!(said.contains("to alicloud-oss.slice"), "{said}");
    assert!(!said.contains(STRANGER), "{said}");
    assert_eq!(cluster.node.run(&["/opt/oss/oss", "adopt"]).unwrap(), "");
    cluster.node.systemctl(&["restart", "kubelet"]).unwrap();
    assert_eq!(read(&cluster, &target.join("file")).unwrap(), b"content");
    cluster.mount(&target, &json!({})).success();
    cluster.unmount(&target);
}

#[test]
#[ignore = "needs root and systemd-nspawn"]
fn a_scope_is_another_way_out_of_kubelets_cgroup() {
    if node::skip() {
        return;
    }
    let cluster = boot();
    cluster.configure(&json!({"launcher": "scope"}));
    let target = cluster.target("u1");
    cluster.mount(&target, &json!({})).success();
    assert!(cluster.unit().ends_with(".scope"), "{}", cluster.unit());
    cluster.node.systemctl(&["restart", "kubelet"]).unwrap();
    let status = served(&cluster);
    fs::write(cluster.node.path(target.join("file")), "content").unwrap();
    // Nothing but its parent starts it again.
    for pid in [status.daemon.unwrap(), status.pid] {
        cluster.kill(&[&pid.to_string()]);
        assert_eq!(read(&cluster, &target.join("file")).unwrap(), b"content");
    }
    cluster.unmount(&target);
    cluster.assert_clean();
}

#[test]
#[ignore = "needs root and systemd-nspawn"]
fn an_unmount_may_come_while_a_process_is_being_started_again() {
    if node::skip() {
        return;
    }
    let cluster = boot();
    let target = cluster.target("u1");
    for round in 0..6 {
        cluster.mount(&target, &json!({})).success();
        match round % 2 {
            0 => cluster.kill(&[&ossfs(&cluster)]),
            _ => cluster.kill(&[&cluster.main_process()]),
        }
        cluster.unmount(&target);
        cluster.assert_clean();
    }
}

#[test]
#[ignore = "needs root and systemd-nspawn"]
fn a_file_that_outlasts_the_unmount_is_uploaded_and_no_unit_is_left() {
    if node::skip() {
        return;
    }
    let cluster = boot();
    cluster.configure(&json!({"unmountTimeoutSeconds": 2}));
    let target = cluster.target("u1");
    cluster.mount(&target, &json!({})).success();
    let mut file = fs::File::create(cluster.node.path(target.join("late"))).unwrap();
    file.write_all(b"before").unwrap();
    cluster.unmount(&target);
    assert!(!cluster.volume().join("passwd").exists());
    file.write_all(b" and after").unwrap();
    nix::unistd::close(file).unwrap();
    cluster.assert_clean();
    let stored = cluster.store.object("docker", "late");
    assert_eq!(stored.as_deref(), Some(&b"before and after"[..]));
    cluster.mount(&target, &json!({})).success();
    cluster.unmount(&target);
    cluster.assert_clean();
}

#[test]
#[ignore = "needs root and systemd-nspawn"]
fn an_ossfs_that_runs_out_of_memory_is_replaced_and_its_unit_goes_on() {
    if node::skip() {
        return;
    }
    let cluster = boot();
    // An ordinary drop-in of an administrator's; a listing of as many objects takes more.
    cluster
        .node
        .write_unit(
            "alicloud-oss@.service.d/memory.conf",
            "[Service]\nMemoryMax=24M\nMemorySwapMax=0\n",
        )
        .unwrap();
    cluster.store.put("docker", "file", "content");
    for n in 0..20_000 {
        cluster.store.put("docker", &format!("many/{n}"), "");
    }
    let target = cluster.target("u1");
    let options = json!({"otherOpts": "-o use_path_request_style -o max_stat_cache_size=1000000"});
    cluster.mount(&target, &options).success();
    let container = cluster.container(&target, "c", Propagation::Private, false);
    let (ossfs, main) = (ossfs(&cluster), cluster.main_process());
    // It is repeated, and ends with an error when several have died of it.
    let listed = fs::read_dir(container.path("many")).map(Iterator::count);
    assert!(
        served(&cluster).ends > 0,
        "ossfs keeps within its limit: {listed:?}"
    );
    assert_eq!(fs::read(container.path("file")).unwrap(), b"content");
    assert_eq!(
        cluster.main_process(),
        main,
        "the unit's own process goes on"
    );
    let journal = cluster.node.journal(&cluster.unit()).unwrap();
    let end = format!("process {ossfs} was ended by signal 9");
    assert!(journal.contains(&end), "{journal}");
    drop(container);
    cluster.unmount(&target);
    cluster.assert_clean();
}

#[test]
#[ignore = "needs root and systemd-nspawn"]
fn nothing_of_the_driver_runs_where_no_volume_is() {
    if node::skip() {
        return;
    }
    let cluster = boot();
    assert!(cluster.call(&["init"]).capabilities.is_some());
    assert_eq!(cluster.units(), [] as [&str; 0]);
}

#[test]
#[ignore = "needs root and systemd-nspawn"]
fn a_unit_has_its_bounds_and_a_volume_with_a_ram_role_one_less() {
    if node::skip() {
        return;
    }
    let cluster = boot();
    let target = cluster.target("u1");
    cluster.mount(&target, &json!({})).success();
    let property = |name: &str| cluster.node.property(&cluster.unit(), name).unwrap();
    assert_eq!(property("OOMScoreAdjust"), "-500");
    let mut denied: Vec<String> = property("IPAddressDeny")
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    denied.sort_unstable();
    assert_eq!(
        denied,
        ["100.100.100.200/32", "169.254.0.0/16", "fe80::/10"]
    );
    let score = fs::read_to_string(
        cluster
            .node
            .path(format!("/proc/{}/oom_score_adj", ossfs(&cluster))),
    );
    assert_eq!(score.unwrap().trim(), "0");
    cluster.unmount(&target);

    // The metadata service is none here, so that the mount fails; the drop-in goes with it.
    let role = json!({"buckets": ["*"], "ramRole": "node-role"});
    cluster.configure(&json!({"nodeCredentials": role, "mountTimeoutSeconds": 5}));
    let options = json!({"akId": "", "akSecret": "", "ramRole": "node-role"});
    cluster.mount(&target, &options).failure();
    fs::remove_dir(cluster.node.path(&target)).unwrap();
    let log = cluster.node.path("/var/log/alicloud/flexvolume_oss.log");
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("ram-role.conf"), "{log}");
    let units = fs::read_dir(cluster.node.path("/run/systemd/system")).unwrap();
    let left: Vec<_> = units
        .flatten()
        .map(|entry| entry.file_name())
        .filter(|name| name.to_string_lossy().ends_with(".service.d"))
        .collect();
    assert_eq!(left, [] as [&str; 0]);
    cluster.assert_clean();
}

#[test]
#[ignore = "needs root and systemd-nspawn"]
fn thousands_of_files_are_open_at_once() {
    if node::skip() {
        return;
    }
    // As in tests/limits.rs.
    const FILES: usize = 1100;
    const TIMES: usize = 10;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    // This process opens them, too. A service of systemd has a soft limit of 1,024 unless its unit says more.
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let cluster = boot();
    for n in 0..FILES {
        cluster.store.put("docker", &format!("f{n}"), "content");
    }
    let target = cluster.target("u1");
    cluster.mount(&target, &json!({})).success();
    let directory = cluster.node.path(&target);
    let open = |n: usize| fs::File::open(directory.join(format!("f{}", n % FILES))).unwrap();
    let files: Vec<fs::File> = (0..FILES * TIMES).map(open).collect();
    assert!(files.len() > 10_000);
    for file in files.iter().rev().step_by(100) {
        let mut bytes = [0; 8];
        assert_eq!(file.read_at(&mut bytes, 0).unwrap(), 7);
    }
    drop(files);
    cluster.unmount(&target);
    cluster.assert_clean();
}

#[test]
#[ignore = "needs root, systemd-nspawn and strace"]
fn calls_start_no_program_but_the_driver_itself() {
    if node::skip() {
        return;
    }
    let cluster = boot();
    let target = cluster.target("u1");
    // The first mount of a boot may install unit files.
    cluster.mount(&target, &json!({})).success();
    cluster.unmount(&target);
    fs::create_dir_all(cluster.node.path(&target)).unwrap();
    let target = target.to_str().unwrap();
    let options = cluster.options(&json!({})).to_string();
    let trace = tempfile::NamedTempFile::new().unwrap();
    for call in [vec!["mount", target, &options], vec!["unmount", target]] {
        let inside = cluster.node.command("/opt/oss/oss");
        // From outside: the node has no strace.
        let output = Command::new("strace")
            .args([
                "-f",
                "-qq",
                "-z",
                "-e",
                "trace=execve,execveat",
                "-e",
                "signal=none",
                "-o",
            ])
            .arg(trace.path())
            .arg(inside.get_program())
            .args(inside.get_args())
            .args(&call)
            .output()
            .unwrap();
        Answer::parse(&String::from_utf8(output.stdout).unwrap()).success();
        let trace = fs::read_to_string(trace.path()).unwrap();
        let programs = trace.lines().filter_map(|line| line.split('"').nth(1));
        // After what enters the node.
        let mut programs = programs.skip_while(|program| *program != "/opt/oss/oss");
        assert!(programs.next().is_some(), "{trace}");
        // Its helpers: what may wait in the kernel for a daemon.
        let others: Vec<_> = programs
            .filter(|program| *program != "/proc/self/exe")
            .collect();
        assert!(others.is_empty(), "{} starts {others:?}", call[0]);
    }
    fs::remove_dir(cluster.node.path(target)).unwrap();
    cluster.assert_clean();
}
