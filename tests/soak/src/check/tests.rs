//! A node where all is right, and everything that can be left on it or be missing.

use super::{Expected, Target, check};
use crate::snapshot::{File, Process, Snapshot};
use std::collections::{BTreeMap, BTreeSet};
use support::Mount;

const ID: &str = "0123456789abcdef0123456789abcdef";
const KEY: &str = "00000000000000000000000000000001";
const TARGET: &str = "/k/pods/pod0-1/volumes/alicloud~oss/data";
const STAGING: &str = "/s/volumes/0123456789abcdef0123456789abcdef/staging";
const SECRET: &str = "sEcrEt+/1";

fn mount(point: &str) -> Mount {
    let line =
        format!("40 30 0:77 / {point} rw,nosuid,nodev,relatime shared:3 - fuse.s3fs s3fs rw");
    Mount::parse(&line).unwrap()
}

fn file(content: &str) -> File {
    File {
        mode: 0o600,
        content: content.into(),
    }
}

fn directory() -> File {
    File {
        mode: 0o700,
        content: Vec::new(),
    }
}

/// The process `pid` of the volume, which `parent` has started.
fn process(pid: u32, parent: u32, arguments: &str) -> Process {
    Process {
        pid,
        parent,
        name: "some".to_owned(),
        arguments: format!("{arguments} "),
        open: BTreeMap::from([(0, "/dev/null".to_owned()), (1, "pipe:[5]".to_owned())]),
        memory: 9000,
        ..Process::default()
    }
}

fn processes() -> Vec<Process> {
    let place = format!("/s/volumes/{ID}");
    vec![
        process(7, 1, &format!("oss serve --parent {place}")),
        process(71, 7, &format!("/proc/self/exe serve --child {place}")),
        process(72, 71, "oss-sandbox"),
        process(
            73,
            72,
            &format!("s3fs docker {STAGING} -o passwd_file={place}/passwd"),
        ),
    ]
}

/// A node with one volume, which one Pod with a container has mounted.
fn node() -> (Snapshot, Expected) {
    let at = |name: &str| format!("volumes/{ID}/{name}");
    let state = [
        ("boot".to_owned(), file("b")),
        ("locks/".to_owned(), directory()),
        ("volumes/".to_owned(), directory()),
        (at(""), directory()),
        (at("lock"), file("")),
        (at("volume.json"), file("{}")),
        (at("passwd"), file(&format!("docker:id:{SECRET}\n"))),
        (at("daemon"), file("7 1234 boot\n")),
        (at("staging/"), File::default()),
        (at("targets/"), directory()),
        (at(&format!("targets/{KEY}")), file(TARGET)),
    ];
    let container = Process {
        pid: 8,
        name: "soak".to_owned(),
        ..Process::default()
    };
    let found = Snapshot {
        mounts: vec![mount(STAGING), mount(TARGET)],
        containers: BTreeMap::from([(8, vec![mount("/"), mount("/data")])]),
        processes: processes().into_iter().chain([container]).collect(),
        state: state.into_iter().collect(),
        logs: BTreeMap::from([("oss.log".to_owned(), file("mount Success"))]),
        targets: vec![TARGET.to_owned()],
    };
    let expected = Expected {
        state: "/s".to_owned(),
        targets: vec![Target {
            path: TARGET.to_owned(),
            volume: 0,
            secrets: BTreeSet::from([SECRET.to_owned()]),
            container: Some(8),
        }],
        containers: BTreeSet::from([8]),
    };
    (found, expected)
}

/// The node with one change; something that the check says has `part` in it.
#[track_caller]
fn finds(part: &str, change: impl FnOnce(&mut Snapshot, &mut Expected)) {
    let (mut found, mut expected) = node();
    change(&mut found, &mut expected);
    let wrong = check(&found, &expected);
    assert!(
        wrong.iter().any(|line| line.contains(part)),
        "{part:?} is not in {wrong:#?}"
    );
}

#[test]
fn a_node_where_all_is_right_has_nothing_wrong() {
    let (found, expected) = node();
    assert_eq!(check(&found, &expected), [] as [&str; 0]);
    let nothing = Snapshot::default();
    assert_eq!(check(&nothing, &Expected::default()), [] as [&str; 0]);
}

#[test]
fn mounts_that_are_left_missing_or_wrong() {
    finds("a mount is left at /k/pods/gone", |found, _| {
        found.mounts.push(mount("/k/pods/gone"))
    });
    finds("nothing is mounted at /k/", |found, _| {
        found.mounts.truncate(1)
    });
    finds("nothing is mounted at /s/", |found, _| {
        drop(found.mounts.remove(0))
    });
    finds("staging carries", |found, _| {
        found.mounts.push(mount(STAGING))
    });
    finds("layers pile up", |found, _| {
        found.mounts.extend([mount(TARGET), mount(TARGET)])
    });
    finds("is mounted with \"rw,relatime\"", |found, _| {
        "rw,relatime".clone_into(&mut found.mounts[1].options);
    });
    finds("is mounted with", |_, expected| {
        expected.targets[0].volume = 2
    });
    finds("shows", |found, _| {
        "0:78".clone_into(&mut found.mounts[1].device)
    });
    finds("in its container", |found, _| {
        let inside = found.containers.get_mut(&8).unwrap();
        "0:78".clone_into(&mut inside[1].device);
    });
    finds("nothing is mounted at", |found, _| {
        drop(found.containers.insert(8, Vec::new()))
    });
    finds("a directory is left at /k/pods/x", |found, _| {
        found.targets.push("/k/pods/x".to_owned())
    });
}

#[test]
fn processes_that_are_left_or_missing() {
    for (parent, arguments, expected) in [
        (1, "s3fs", "process 9 is left"),
        (1, "oss-probe", "process 9 is left"),
        (7, "sh", "has other processes"),
        (
            71,
            "s3fs -o passwd_file=/s/volumes/other/passwd",
            "has other processes",
        ),
        (
            71,
            &*format!("s3fs -o passwd_file=/s/volumes/{ID}/passwd"),
            "has 2 processes",
        ),
    ] {
        finds(expected, |found, _| {
            found.processes.push(process(9, parent, arguments));
        });
    }
    // ossfs, its process, and that one's parent.
    for missing in [3, 1, 0] {
        finds("has 0 processes with", |found, _| {
            drop(found.processes.remove(missing));
        });
    }
    finds("process 8 is left: soak", |_, expected| {
        expected.containers.clear()
    });
}

#[test]
fn descriptors_and_memory_that_a_process_should_not_have() {
    finds("has a lock open", |found, _| {
        found.processes[1]
            .open
            .insert(9, "/s/volumes/x/lock".to_owned());
    });
    finds("has open: {", |found, _| {
        let sockets = (10..90).map(|n| (n, format!("socket:[{n}]")));
        found.processes[3].open.extend(sockets);
    });
    finds("KiB", |found, _| found.processes[0].memory = 1 << 20);
}

#[test]
fn keys_and_files_that_are_left() {
    let put = |name: &str, file: File| {
        let name = name.to_owned();
        move |found: &mut Snapshot, _: &mut Expected| drop(found.state.insert(name, file))
    };
    finds("which is gone", |_, expected| expected.targets.clear());
    finds("volume f has no target", put("volumes/f/", directory()));
    finds(
        "is left in the state directory: locks/x",
        put("locks/x", file("")),
    );
    finds(
        "is left in the state directory",
        put("passwd", file(SECRET)),
    );
    let at = |name: &str| format!("volumes/{ID}/{name}");
    finds("a secret is in", put(&at("volume.json"), file(SECRET)));
    finds("a secret is in", put(&at("passwd.new"), file(SECRET)));
    let open = File {
        mode: 0o644,
        ..file(&format!("docker:id:{SECRET}\n"))
    };
    finds("mode 0644", put(&at("passwd"), open));
    finds("a secret is in the log", |found, _| {
        found
            .logs
            .insert("oss.log.1".to_owned(), file(&format!("x{SECRET}y")));
    });
    finds("a secret is in the arguments of 7", |found, _| {
        found.processes[0].arguments.push_str(SECRET);
    });
    finds("a secret is in the environment of 71", |found, _| {
        found.processes[1].environment.push_str("S=c0VjckV0Ky8x");
    });
}

#[test]
fn volumes_that_are_confused() {
    finds("has another key pair", |_, expected| {
        expected.targets[0].secrets = BTreeSet::from(["sEcrEt+/2".to_owned()]);
    });
    finds("which is gone", |found, _| {
        let name = format!("volumes/{ID}/targets/{}", KEY.replace('1', "2"));
        found
            .state
            .insert(name, file("/k/pods/pod9-1/volumes/alicloud~oss/data"));
    });
    finds("is a target of no volume", |_, expected| {
        let other = Target {
            path: "/k/other".to_owned(),
            ..expected.targets[0].clone()
        };
        expected.targets.push(other);
    });
    finds("are one", |found, expected| {
        let id = ID.replace('0', "f");
        let of_first: Vec<_> = found
            .state
            .iter()
            .map(|(n, f)| (n.clone(), f.clone()))
            .collect();
        for (name, mut file) in of_first {
            if name.ends_with(KEY) {
                file.content = b"/k/other".to_vec();
            }
            found.state.insert(name.replace(ID, &id), file);
        }
        let other = Target {
            path: "/k/other".to_owned(),
            ..expected.targets[0].clone()
        };
        expected.targets.push(other);
    });
}
