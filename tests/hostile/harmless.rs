//! Attacks that pass, because what they bring is one argument of ossfs's or none at all: no shell
//! ever sees it, and the arguments are those of an ordinary volume.

use crate::DRIVER;
use crate::recorder::{Recorder, Then};
use crate::shell::WORDS;
use crate::table;
use serde_json::{Map, Value, json};
use support::with_sandbox;

/// An attack with what it may bring about at most.
struct Harmless {
    name: String,
    change: Value,
    /// ossfs's first argument.
    source: String,
    /// Its options before those that are always the same.
    options: Vec<String>,
}

impl Harmless {
    fn new(name: impl Into<String>, change: Value) -> Self {
        Self {
            name: name.into(),
            change,
            source: "docker".to_owned(),
            options: Vec::new(),
        }
    }

    fn with_options(mut self, options: &[&str]) -> Self {
        self.options = options.iter().map(|option| (*option).to_owned()).collect();
        self
    }
}

fn one(key: &str, value: &str) -> Value {
    Value::Object(Map::from_iter([(key.to_owned(), json!(value))]))
}

/// Runs `attacks`, of which there are at least `least`, against a daemon that records.
fn assert_all_harmless(least: usize, attacks: &[Harmless]) {
    assert!(attacks.len() >= least, "{} attacks are left", attacks.len());
    with_sandbox(DRIVER, |node| {
        let recorder = Recorder::new(node, &Then::End, json!({}));
        for attack in attacks {
            let name = &attack.name;
            let mut options = node.options(json!({"otherOpts": ""}));
            let change: Value =
                serde_json::from_str(&recorder.arm(&attack.change.to_string())).unwrap();
            for (key, value) in change.as_object().unwrap() {
                options[key] = value.clone();
            }
            let answer = recorder.mount("u", &options);
            recorder.assert_ended(name, &answer);
            let own: Vec<&str> = attack.options.iter().map(String::as_str).collect();
            let expected = recorder.expected(&recorder.arm(&attack.source), &own);
            assert_eq!(recorder.arguments(), Some(expected), "{name}");
        }
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn words_for_a_shell_are_a_name_or_a_key_and_nothing_more() {
    let mut attacks = Vec::new();
    for words in WORDS {
        if words.is_path {
            // Success: a directory of a bucket may have such a name.
            let path = format!("/{}", words.text);
            attacks.push(Harmless {
                source: format!("docker:{path}"),
                ..Harmless::new(format!("path: {}", words.name), one("path", &path))
            });
        }
        if words.is_key {
            // Success: it goes into the passwd file, and the store refuses it.
            for key in ["akId", "akSecret"] {
                let name = format!("{key}: {}", words.name);
                attacks.push(Harmless::new(name, one(key, words.text)));
            }
        }
        // Success: nobody reads them.
        for key in [
            "kubernetes.io/pod.name",
            "kubernetes.io/secret/other",
            "unknown",
        ] {
            let name = format!("{key}: {}", words.name);
            attacks.push(Harmless::new(name, one(key, words.text)));
        }
        let name = format!("a key: {}", words.name);
        attacks.push(Harmless::new(name, one(words.text, "x")));
    }
    assert_all_harmless(130, &attacks);
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn what_kubelet_says_of_the_pod_is_not_believed() {
    let mut attacks = Vec::new();
    for key in [
        "kubernetes.io/pod.uid",
        "kubernetes.io/pod.name",
        "kubernetes.io/pod.namespace",
        "kubernetes.io/pvOrVolumeName",
        "kubernetes.io/serviceAccount.name",
        "kubernetes.io/fsType",
        "kubernetes.io/mounterArgs",
        "kubernetes.io/target",
        "kubernetes.io/",
    ] {
        for value in [
            "",
            "../../../../etc",
            "/etc",
            "another-pod",
            "ext4,suid,dev",
            "-o suid",
            "x\nx",
            "\0",
        ] {
            // Success: TARGET alone says whose volume it is.
            let name = format!("{key} as {value:?}");
            attacks.push(Harmless::new(name, one(key, value)));
        }
    }
    // Success: whoever names a group has the files of their own bucket belong to it.
    attacks.push(
        Harmless::new("fsGroup 0", one("kubernetes.io/mounterArgs.FsGroup", "0"))
            .with_options(&["gid=0", "umask=0000"]),
    );
    // Success: the author of a volume decides anyhow whether it is read-only.
    attacks.push(Harmless::new("ro", one("kubernetes.io/readwrite", "ro")).with_options(&["ro"]));
    assert_all_harmless(74, &attacks);
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn odd_spellings_of_right_options_mean_what_they_say() {
    let opts = |text: &str| one("otherOpts", text);
    let mut attacks = vec![
        Harmless::new("blanks alone", opts("   ")),
        Harmless::new("the driver's own", opts("-o allow_other -o nosuid,nodev")),
        Harmless::new("allow_root", opts("-o allow_root")),
        Harmless::new("a switch", opts("-s")).with_options(&["-s"]),
        Harmless::new("many blanks", opts("  -o   uid=1   -s  ")).with_options(&["uid=1", "-s"]),
        // The last of two equal options wins with ossfs, and both are the author's.
        Harmless::new("twice", opts("-o uid=1 -o uid=2")).with_options(&["uid=1", "uid=2"]),
        Harmless::new("noexec", opts("-o noexec,noexec")).with_options(&["noexec", "noexec"]),
        Harmless::new("dropped", opts("-o sigv2,noxattr,use_rrs=suid")),
        Harmless::new("translated", opts("-o default_permission=777"))
            .with_options(&["umask=0000"]),
        Harmless::new("every object as root's", opts("-o uid=0,gid=0"))
            .with_options(&["uid=0", "gid=0"]),
        Harmless::new(
            "a bucket with a new line after it",
            one("bucket", "docker\n"),
        ),
        Harmless::new("the whole bucket", one("path", "/")),
        Harmless {
            source: "docker:/..a/.b/...".to_owned(),
            ..Harmless::new("dots that lead nowhere", one("path", "/..a/.b/.../"))
        },
        Harmless {
            source: "docker:/%2e%2e/%2f".to_owned(),
            ..Harmless::new("percent escapes", one("path", "/%2e%2e/%2f"))
        },
        Harmless {
            source: "docker:/-o suid".to_owned(),
            ..Harmless::new("an option in a path", one("path", "/-o suid"))
        },
        Harmless {
            source: "docker:/a:b:c".to_owned(),
            ..Harmless::new("colons in a path", one("path", "/a:b:c"))
        },
        Harmless::new(
            "a secret that looks like an option",
            one("akSecret", "-osuid,dev"),
        ),
        Harmless::new(
            "a key id that looks like a path",
            one("akId", "../../etc/passwd"),
        ),
        Harmless::new(
            "a region without a version",
            one("region", "$(touch CANARY)"),
        ),
        Harmless::new("a look-alike of a key", one("buc\u{212a}et", "other")),
        Harmless::new("a full-width key", one("\u{ff50}ath", "/etc")),
        Harmless::new("a key with a blank", one("path ", "/etc")),
        Harmless::new("a key with a NUL", one("path\0", "/etc")),
        Harmless::new("a key of a prototype", one("__proto__", "{}")),
        Harmless::new("an empty key", one("", "-o suid")),
    ];
    let decoded = |id: &str, secret: &str| {
        use base64::Engine as _;
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        json!({
            "kubernetes.io/secret/akId": encode(id),
            "kubernetes.io/secret/akSecret": encode(secret),
        })
    };
    attacks.push(Harmless::new(
        "a Secret in new lines",
        decoded("\n\tLTAIkeyid\r\n", " sEcrEtsEcrEt\n\n"),
    ));
    attacks.push(Harmless::new(
        "a Secret with metacharacters",
        decoded("$(touch${IFS}x)", "`touch${IFS}x`;|"),
    ));
    assert_all_harmless(27, &attacks);
}

/// A value that the option `name` takes.
fn value_of(name: &str) -> &'static str {
    match name {
        "umask" | "mp_umask" => "0027",
        "default_acl" => "private",
        "storage_class" => "IA",
        "retries" => "10",
        "use_sse" => "1",
        "dbglevel" => "warn",
        "list_object_max_keys" => "1000",
        "max_dirty_data" => "-1",
        "intr_signal" => "10",
        _ => "60",
    }
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn every_tuning_and_identity_option_is_one_argument() {
    let mut attacks = Vec::new();
    for class in ["tuning", "identity"] {
        for row in table::rows(class) {
            for option in row.spellings(value_of(row.name)) {
                let always = ["allow_other", "allow_root", "nosuid", "nodev"];
                let options = if always.contains(&row.name) {
                    vec![]
                } else {
                    vec![option.as_str()]
                };
                let text = match option.starts_with('-') {
                    true => option.clone(),
                    false => format!("-o {option}"),
                };
                attacks.push(Harmless::new(&text, one("otherOpts", &text)).with_options(&options));
            }
        }
    }
    assert_all_harmless(120, &attacks);
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_directory_with_words_for_a_shell_is_mounted_as_one() {
    with_sandbox(DRIVER, |node| {
        let recorder = Recorder::new(node, &Then::Serve, json!({}));
        for words in WORDS.iter().filter(|words| words.is_path) {
            let path = recorder.arm(&format!("/{}", words.text));
            node.store.put("docker", &format!("{}/", &path[1..]), "");
            node.store
                .put("docker", &format!("{}/file", &path[1..]), words.name);
            let target = node.target("u", "v");
            let answer = node.mount(&target, &node.options(json!({"path": path})));
            assert_eq!(answer.message, "", "{path}");
            let content = std::fs::read_to_string(target.join("file")).unwrap();
            assert_eq!(content, words.name);
            node.unmount(&target).success();
            recorder.assert_nothing_left(words.name);
        }
    });
}
