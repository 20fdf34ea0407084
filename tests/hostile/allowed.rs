//! What the node's administrator opens is open, and nothing beside it.

use crate::DRIVER;
use crate::recorder::{Recorder, Then};
use crate::table;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use support::{Sandbox, mounter, with_sandbox};

/// A value that the sensitive option `name` takes.
fn value_of(name: &str) -> &'static str {
    match name {
        "ssl_verify_hostname" | "use_xattr" => "0",
        _ => "/srv/oss/a",
    }
}

/// The options that nobody can allow, because the node configuration has one label for all volumes.
const LABELS: [&str; 4] = ["context", "fscontext", "defcontext", "rootcontext"];

/// Puts an empty file system at /srv, in this test's mount namespace: the driver makes there what
/// options name.
fn empty_srv() {
    let none = None::<&str>;
    // None is there the first time.
    let _ = umount2("/srv", MntFlags::MNT_DETACH);
    mount(Some("none"), "/srv", Some("tmpfs"), MsFlags::empty(), none).unwrap();
    fs::create_dir("/srv/oss").unwrap();
}

/// `option` as ossfs gets it: each volume has a cache of its own.
fn passed_on(option: &str) -> String {
    match option.split_once('=') {
        Some(("use_cache" | "tmpdir", path)) if path.starts_with('/') => {
            format!("{option}/alicloud-oss-ID")
        }
        _ => option.to_owned(),
    }
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_sensitive_option_passes_where_its_name_is_allowed_and_opens_no_other() {
    with_sandbox(DRIVER, |node| {
        for row in table::rows("sensitive") {
            for option in row.spellings(value_of(row.name)) {
                empty_srv();
                let config = json!({"allowedOptions": [row.name]});
                let recorder = Recorder::new(node, &Then::End, config);
                let options = node.options(json!({"otherOpts": format!("-o {option}")}));
                if LABELS.contains(&row.name) {
                    let answer = recorder.mount("u", &options);
                    let message = answer.failure();
                    assert!(
                        message.contains("can never be allowed: seLinuxContext"),
                        "{message}"
                    );
                    recorder.assert_nothing_left(&option);
                    continue;
                }
                recorder.assert_ended(&option, &recorder.mount("u", &options));
                let expected = recorder.expected("docker", &[&passed_on(&option)]);
                assert_eq!(recorder.arguments(), Some(expected), "{option}");

                let other = match row.name {
                    "suid" => "dev",
                    _ => "suid",
                };
                let options = node.options(json!({"otherOpts": format!("-o {option},{other}")}));
                let answer = recorder.mount("u", &options);
                let message = answer.failure();
                assert!(
                    message.contains(&format!("\"{other}\" is not allowed")),
                    "{message}"
                );
                assert_eq!(recorder.arguments(), None, "{option}");
            }
        }
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn an_entry_with_a_value_opens_that_value_alone() {
    with_sandbox(DRIVER, |node| {
        for (allowed, option, passes) in [
            ("use_cache=/srv/oss/", "use_cache=/srv/oss/a", true),
            ("use_cache=/srv/oss/", "use_cache=/srv/oss/a/b", true),
            ("use_cache=/srv/oss/", "use_cache=/srv/oss/", false),
            ("use_cache=/srv/oss/", "use_cache=/srv/oss", false),
            ("use_cache=/srv/oss/", "use_cache=/srv/ossx", false),
            ("use_cache=/srv/oss/", "use_cache=/srv/oss/../../etc", false),
            ("use_cache=/srv/oss/", "use_cache=/srv/oss/./a", false),
            ("use_cache=/srv/oss/", "use_cache=/srv/oss//a", false),
            ("use_cache=/srv/oss/", "use_cache=/etc", false),
            ("use_cache=/srv/oss/", "use_cache=srv/oss/a", false),
            ("use_cache=/srv/oss/", "use_cache=/SRV/oss/a", false),
            ("use_cache=/srv/oss/", "tmpdir=/srv/oss/a", false),
            ("use_cache=/srv/oss/a", "use_cache=/srv/oss/a", true),
            ("use_cache=/srv/oss/a", "use_cache=/srv/oss/a/b", false),
            ("use_cache=/srv/oss/a", "use_cache=/srv/oss/a/", false),
            ("ssl_verify_hostname=1", "ssl_verify_hostname=0", false),
            ("ssl_verify_hostname=1", "ssl_verify_hostname=1", true),
            ("curldbg=normal", "curldbg=body", false),
            ("curldbg=normal", "curldbg", false),
            ("curldbg=normal", "curldbg=normal", true),
        ] {
            let name = format!("{option} under {allowed}");
            empty_srv();
            let config = json!({"allowedOptions": [allowed]});
            let recorder = Recorder::new(node, &Then::End, config);
            let options = node.options(json!({"otherOpts": format!("-o {option}")}));
            let answer = recorder.mount("u", &options);
            let arguments = recorder.arguments();
            if passes {
                recorder.assert_ended(&name, &answer);
                assert_eq!(
                    arguments,
                    Some(recorder.expected("docker", &[&passed_on(option)])),
                    "{name}"
                );
            } else {
                let message = answer.failure();
                assert!(
                    message.contains("is not allowed on this node"),
                    "{name}: {message}"
                );
                assert_eq!(arguments, None, "{name}");
            }
        }
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn driver_owned_options_pass_under_no_configuration() {
    with_sandbox(DRIVER, |node| {
        for row in table::rows("driver-owned") {
            for key in ["allowedOptions", "defaultOptions"] {
                for option in row.spellings("x") {
                    let mut config = json!({});
                    config[key] = json!([option]);
                    let recorder = Recorder::new(node, &Then::End, config);
                    let options = node.options(json!({"otherOpts": ""}));
                    let answer = recorder.mount("u", &options);
                    let message = answer.failure();
                    assert!(message.contains(key), "{key} {option}: {message}");
                    assert_eq!(recorder.arguments(), None, "{key} {option}");
                }
            }
        }
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn the_node_lends_its_identity_where_the_configuration_says_so() {
    with_sandbox(DRIVER, |node| {
        let (id, secret) = (node.path("akId"), node.path("akSecret"));
        fs::write(&id, format!("{}\n", node.key_id)).unwrap();
        fs::write(&secret, format!("{}\n", node.secret)).unwrap();
        for buckets in [json!(["docker"]), json!(["*"])] {
            let config = json!({"nodeCredentials": {
                "akIdFile": id, "akSecretFile": secret, "buckets": buckets, "ramRole": "node-role",
            }});
            let recorder = Recorder::new(node, &Then::End, config);
            let lent = |change: Value| {
                let mut options = node.options(json!({"otherOpts": ""}));
                for key in ["akId", "akSecret"] {
                    options.as_object_mut().unwrap().remove(key);
                }
                for (key, value) in change.as_object().unwrap() {
                    options[key] = value.clone();
                }
                options
            };
            let answer = recorder.mount("u", &lent(json!({})));
            recorder.assert_ended("the node's keys", &answer);
            let expected = recorder.expected("docker", &[]);
            assert_eq!(recorder.arguments(), Some(expected.clone()));

            let answer = recorder.mount("u", &lent(json!({"ramRole": "node-role"})));
            recorder.assert_ended("the node's role", &answer);
            let mut with_role = expected;
            *with_role.last_mut().unwrap() = "ram_role=node-role".to_owned();
            assert_eq!(recorder.arguments(), Some(with_role));
        }
    });
}

/// The flags of the mount at `path`.
fn flags(node: &Sandbox, path: &Path) -> Vec<String> {
    let options = node.mount_at(path).options;
    options.split(',').map(str::to_owned).collect()
}

/// The staging directories of the node's volumes.
fn stagings(node: &Sandbox) -> Vec<std::path::PathBuf> {
    fs::read_dir(node.state_directory().join("volumes"))
        .unwrap()
        .map(|entry| entry.unwrap().path().join("staging"))
        .collect()
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn nosuid_and_nodev_hold_on_staging_and_every_bind_whatever_is_allowed() {
    with_sandbox(DRIVER, |node| {
        // Stands for an ossfs in which the first of two options wins, or that forgets its own.
        let stubborn = node.write_script(
            "stubborn",
            &format!(
                "n=$#\nwhile [ $n -gt 0 ]; do\n a=$1; shift; n=$((n - 1))\n case $a in\n\
                 nosuid) a=suid ;;\n nodev) a=dev ;;\n esac\n set -- \"$@\" \"$a\"\ndone\n\
                 {}",
                mounter().script()
            ),
        );
        for daemon in [node.path("ossfs"), stubborn] {
            let config = json!({"allowedOptions": ["suid", "dev", "exec"], "ossfs": daemon});
            node.configure(config.as_object().unwrap());
            for mode in ["rw", "ro"] {
                let options = node.options(json!({
                    "otherOpts": "-o suid,dev,exec -o suid -o dev",
                    "kubernetes.io/readwrite": mode,
                }));
                let targets = [node.target("u1", "a"), node.target("u2", "b")];
                for target in &targets {
                    node.mount(target, &options).success();
                }
                let staging = stagings(node);
                assert_eq!(staging.len(), 1);
                for place in targets.iter().chain(&staging) {
                    let flags = flags(node, place);
                    for wanted in ["nosuid", "nodev", mode] {
                        assert!(
                            flags.iter().any(|flag| flag == wanted),
                            "{wanted} is not among {flags:?} of {}",
                            place.display()
                        );
                    }
                }
                for target in &targets {
                    node.unmount(target).success();
                }
            }
        }
    });
}
