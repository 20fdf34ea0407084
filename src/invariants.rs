//! What holds for any input, hostile or not. The property tests and the fuzz targets (feature
//! `invariants`) share it, and it knows options by the table of `tests/data` alone, not by the
//! driver's own. A function here panics where something does not hold.

use crate::config::Config;
use crate::credentials::{Credentials, KeyPair};
use crate::mounts::table::MountTable;
use crate::options::option::{MountOption, split};
use crate::ossfs::arguments::arguments;
use crate::request::{CredentialSource, MountRequest};
pub use crate::serve::relay::any_traffic::check_traffic;
use std::collections::HashMap;
use std::path::Path;
use std::sync::LazyLock;

const TSV: &str = include_str!("../tests/data/ossfs-options.tsv");
const STAGING: &str = "/state/staging";
const PASSWD: &str = "/state/passwd";
/// The longest refusal, in bytes: it becomes a Pod Event.
const MAX_REFUSAL: usize = 900;

/// Node configurations under which the options of a volume are read.
const CONFIGS: [&str; 4] = [
    "{}",
    r#"{"allowedOptions":["use_cache=/var/cache/oss/","suid","credential_process"]}"#,
    r#"{"defaultOptions":["noua","no_check_certificate"]}"#,
    r#"{"nodeCredentials":{"buckets":["*"],"ramRole":"node-role"}}"#,
];

/// By option: "no", "yes" or "optional" for whether it takes a value, and its class.
type Rows = HashMap<&'static str, (&'static str, &'static str)>;

static ROWS: LazyLock<Rows> = LazyLock::new(|| {
    TSV.lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split('\t');
            Some((fields.next()?, (fields.next()?, fields.next()?)))
        })
        .collect()
});

fn row(name: &str) -> Option<(&'static str, &'static str)> {
    ROWS.get(name).copied()
}

/// Asserts that `text` is one single option of a class in `classes` that ossfs and libfuse take as
/// it stands.
fn check_option(text: &str, classes: &[&str]) {
    let graphic = |b: u8| b.is_ascii_graphic() && !b",\\\"'`".contains(&b);
    assert!(text.bytes().all(graphic), "{text:?} is not one plain word");
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (text, None),
    };
    let (takes, class) = row(name).unwrap_or_else(|| panic!("{text:?} is not an option"));
    assert!(classes.contains(&class), "{text:?} is {class}");
    match value {
        None => assert_ne!(takes, "yes", "{text:?} has no value"),
        Some(value) => {
            assert_ne!(takes, "no", "{text:?} has a value");
            assert!(!value.is_empty(), "{text:?} has an empty value");
            let is_option = value.starts_with('-') && text != "max_dirty_data=-1";
            assert!(!is_option, "{text:?} has a value like an option");
        }
    }
}

/// Asserts that `arguments` start ossfs on one bucket with options of `classes` and the driver's
/// own, in which every `-o` has one option after it.
fn check_arguments(arguments: &[String], classes: &[&str], read_only: bool) {
    let [source, staging, foreground, rest @ ..] = arguments else {
        panic!("{arguments:?} are too few");
    };
    let (bucket, path) = source.split_once(':').unwrap_or((source, "/"));
    let is_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    assert!(bucket.bytes().all(is_name), "{source:?}");
    assert!((3..=63).contains(&bucket.len()), "{source:?}");
    assert!(!bucket.starts_with('-'), "{source:?}");
    assert!(path.starts_with('/'), "{source:?}");
    let climbs = |part: &str| matches!(part, "." | "..");
    assert!(!path.split('/').any(climbs), "{source:?}");
    let breaks = |c: char| c.is_control() || ",\\\"'`".contains(c);
    assert!(!source.contains(breaks), "{source:?}");
    assert_eq!((staging.as_str(), foreground.as_str()), (STAGING, "-f"));

    let mut options = Vec::new();
    let mut words = rest.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let option = match word {
            "-o" => words.next().unwrap_or_else(|| panic!("{rest:?}")),
            word => {
                assert!(word.starts_with('-'), "{word:?} is a third argument");
                word
            }
        };
        assert_eq!(word == "-o", !option.starts_with('-'), "{option:?}");
        options.push(option);
    }
    let own = 5 + usize::from(read_only);
    assert!(options.len() >= own, "{options:?}");
    let (volume, own) = options.split_at(options.len() - own);
    for option in volume {
        check_option(option, classes);
    }
    for option in own {
        check_option(option, &["driver-owned", "sensitive", "identity", "tuning"]);
    }
    let own = own.strip_prefix(&["ro"]).unwrap_or(own);
    let [others, suid, dev, url, credentials] = own else {
        panic!("{own:?} are not the driver's own");
    };
    assert_eq!([*others, *suid, *dev], ["allow_other", "nosuid", "nodev"]);
    assert!(url.starts_with("url="), "{url:?}");
    let file = format!("passwd_file={PASSWD}");
    assert!(
        *credentials == file || credentials.starts_with("ram_role="),
        "{credentials:?}"
    );
}

/// The classes of options that may pass on a node with `config`: one that allows nothing lets
/// nothing sensitive pass.
fn classes(config: &Config) -> &'static [&'static str] {
    let closed = config.allowed_options.is_empty() && config.default_options.is_empty();
    if closed {
        &["tuning", "identity"]
    } else {
        &["tuning", "identity", "sensitive"]
    }
}

/// Asserts that the options `json` of a mount call on a node with `config` are refused in one line,
/// or become arguments that start one ossfs and nothing else. Says which.
fn check_request(json: &str, config: &Config) -> bool {
    match MountRequest::parse(json, config) {
        Err(refusal) => {
            assert!(refusal.len() < MAX_REFUSAL, "{refusal:?}");
            assert!(!refusal.contains(char::is_control), "{refusal:?}");
            false
        }
        Ok(request) => {
            let credentials = match &request.credentials {
                CredentialSource::Given(_) | CredentialSource::Node => {
                    let pair = KeyPair::parse("keyid", "secret");
                    Credentials::Keys(pair.unwrap_or_else(|(half, e)| panic!("{half} {e}")))
                }
                CredentialSource::RamRole(role) => Credentials::RamRole(role.clone()),
            };
            let arguments = arguments(
                &request.location,
                Path::new(STAGING),
                &request.options,
                request.read_only,
                &credentials,
                Path::new(PASSWD),
            );
            check_arguments(&arguments, classes(config), request.read_only);
            true
        }
    }
}

/// `check_request` on a node with one of a few configurations, which `config` chooses.
pub fn check_mount(config: u8, json: &str) -> bool {
    let config = Config::parse(CONFIGS[usize::from(config) % CONFIGS.len()]);
    check_request(json, &config.unwrap_or_else(|e| panic!("{e}")))
}

/// `check_request` of a volume that is right but for `other_opts`, which may be anything.
pub fn check_volume_with(other_opts: &str) -> bool {
    let json = serde_json::json!({
        "bucket": "docker", "url": "host", "akId": "keyid", "akSecret": "secret",
        "otherOpts": other_opts,
    });
    check_request(&json.to_string(), &Config::default())
}

/// Asserts that the single options of `text`, if it has any but right ones none, are options of
/// ossfs that stay the same when they are written out and read again. Says whether they are right.
pub fn check_other_opts(text: &str) -> bool {
    let Ok(options) = split("otherOpts", text, &mut Vec::new()) else {
        return false;
    };
    for option in &options {
        let rendered = option.render();
        check_option(
            &rendered_for_table(&rendered),
            &["tuning", "identity", "sensitive", "driver-owned"],
        );
        let again = MountOption::parse("otherOpts", &rendered);
        assert_eq!(again.as_ref(), Ok(option), "{rendered:?}");
    }
    let written: Vec<String> = options.iter().flat_map(MountOption::arguments).collect();
    let mut notes = Vec::new();
    let again = split("otherOpts", &written.join(" "), &mut notes);
    assert_eq!(again, Ok(options), "{written:?}");
    assert_eq!(notes, [] as [&str; 0], "{written:?}");
    true
}

/// Driver-owned options are told by their names, whatever their values: those are never used.
fn rendered_for_table(option: &str) -> String {
    let name = option.split('=').next().unwrap_or(option);
    match row(name) {
        Some(("yes", "driver-owned")) => format!("{name}=x"),
        Some((_, "driver-owned")) => name.to_owned(),
        _ => option.to_owned(),
    }
}

/// Asserts that the mount table of `text` answers questions about any of its mount points.
pub fn check_mountinfo(text: &str) {
    let table = MountTable::parse(text);
    let all = table.below(Path::new(""));
    for path in ["/", "/a", "/a/b"].map(Path::new).iter().chain(&all) {
        if let Some(top) = table.top(path) {
            assert_eq!(top.mount_point, *path);
        }
        let below = table.below(path);
        for pair in below.windows(2) {
            let depth = |path: &Path| path.components().count();
            assert!(depth(pair[0]) >= depth(pair[1]), "{pair:?}");
        }
        for point in below {
            assert!(point.starts_with(path) && point != *path, "{point:?}");
        }
    }
}

/// Asserts that a node configuration that is taken is safe to act on. Says whether it is taken.
pub fn check_config(text: &str) -> bool {
    let Ok(config) = Config::parse(text) else {
        return false;
    };
    for path in [&config.state_dir, &config.log_file] {
        assert!(path.is_absolute() && path != Path::new("/"), "{path:?}");
        let normal: std::path::PathBuf = path.components().collect();
        assert_eq!(normal.as_os_str(), path.as_os_str());
    }
    let state = config.state_dir.to_string_lossy();
    assert!(!state.contains([',', '\\', ' ']), "{state:?}");
    assert!((1..=3600).contains(&config.mount_timeout.as_secs()));
    assert!((1..=3600).contains(&config.unmount_timeout.as_secs()));
    for option in &config.default_options {
        check_option(&option.render(), &["tuning", "identity", "sensitive"]);
    }
    if let Some(role) = config.node_credentials.and_then(|node| node.ram_role) {
        assert!(!role.contains([':', '/', ',', ' ']), "{role:?}");
    }
    true
}

#[cfg(test)]
mod properties;
