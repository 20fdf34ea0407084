//! Properties of everything that reads a Pod author's words, for inputs that are made up: of the
//! pieces of right ones, of those that attacks are made of, and of nothing but chance.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use super::{check_config, check_mountinfo, check_other_opts, check_request};
use crate::config::Config;
use crate::credentials::KeyPair;
use crate::mounts::table::MountTable;
use crate::options::table::{Class, Kind, OPTIONS};
use crate::request::{CredentialSource, MountRequest};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree as _;
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// A secret that no message may repeat; no other piece has a part of it.
const SECRET: &str = "ZZsecretZZ0123456789ZZ";

/// What separates, escapes or ends something for a shell, libfuse, JSON or a person.
const PIECES: &[&str] = &[
    "",
    " ",
    ",",
    ",,",
    "=",
    "==",
    "-",
    "--",
    "-o",
    "-o ",
    " -o ",
    " -o",
    "-f",
    "-d",
    "-s",
    "-h",
    "\\",
    "\\x2c",
    "\\054",
    "\\,",
    "'",
    "\"",
    "`",
    "$(",
    ")",
    "${IFS}",
    ";",
    "|",
    "&",
    ">",
    "#",
    "\n",
    "\r",
    "\t",
    "\0",
    "\u{b}",
    "\u{7f}",
    "\u{85}",
    "\u{a0}",
    "\u{2028}",
    "\u{202e}",
    "\u{200b}",
    "\u{feff}",
    "\u{ff0c}",
    "\u{212a}",
    "%",
    "%2c",
    "%n",
    "/",
    "..",
    ".",
    "//",
    "/../",
    ":",
    "@",
    "?",
    "*",
    "~",
    "0",
    "1",
    "7",
    "-1",
    "4294967295",
    "18446744073709551616",
    "0x1",
    "1e9",
    "inf",
    "http://",
    "file://",
    "127.0.0.1",
    "169.254.169.254",
    "docker",
    "host",
    "suid",
    "dev",
    "credential_process",
    "cred\\ential_process",
    "use_cache",
    "url",
    "passwd_file",
    "default_permission",
    "sigv2",
    "noxattr",
    "{",
    "}",
    "[",
    "null",
];

/// The name of an option of any class.
fn name() -> impl Strategy<Value = &'static str> {
    (0..OPTIONS.len()).prop_map(|index| OPTIONS[index].0)
}

fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => select(PIECES).prop_map(str::to_owned),
        2 => name().prop_map(str::to_owned),
        1 => "[ -~]{0,6}",
        1 => any::<char>().prop_map(String::from),
    ]
}

fn hostile() -> impl Strategy<Value = String> {
    prop::collection::vec(piece(), 0..12).prop_map(|pieces| pieces.concat())
}

/// A value that an option of `kind` takes.
fn right_value(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Flag => None,
        Kind::Octal => Some("0022"),
        Kind::Path => Some("/a/b"),
        Kind::OneOf(words) => words.first().copied(),
        Kind::Number(1000, _) => Some("1000"),
        Kind::DirtyData => Some("-1"),
        Kind::Seconds => Some("0.5"),
        Kind::Name | Kind::Text | Kind::OptionalName | Kind::OptionalText => Some("a"),
        _ => Some("1"),
    }
}

/// The options of the classes that `wanted` holds for, as they should be written.
fn right_options(wanted: impl Fn(Class) -> bool) -> Vec<String> {
    OPTIONS
        .iter()
        .filter(|(_, class, _)| wanted(*class))
        .map(|&(name, _, kind)| match right_value(kind) {
            Some(value) => format!("{name}={value}"),
            None => name.to_owned(),
        })
        .collect()
}

/// An option as it should be written, mostly one that passes.
fn right_option() -> impl Strategy<Value = String> {
    let passes = |class| matches!(class, Class::Tuning | Class::Identity);
    prop_oneof![
        20 => select(right_options(passes)),
        1 => select(right_options(|class| !passes(class))),
    ]
}

/// An option as it should be written, or nearly so.
fn nearly_option() -> impl Strategy<Value = String> {
    prop_oneof![
        12 => right_option(),
        1 => (right_option(), piece()).prop_map(|(option, piece)| option + &piece),
        1 => (piece(), right_option()).prop_map(|(piece, option)| piece + &option),
        1 => (name(), hostile()).prop_map(|(name, value)| format!("{name}={value}")),
    ]
}

fn other_opts() -> impl Strategy<Value = String> {
    let separator = select(&[" -o ", " -o", ",", " -o noua,", "  -s -o "][..]);
    let options = prop::collection::vec((separator, nearly_option()), 0..6);
    let list = options.prop_map(|options| {
        let mut text = "-o noua".to_owned();
        for (separator, option) in options {
            // A switch is an argument of its own, so no comma follows it.
            if option.starts_with('-') {
                text = format!("{text} {option} -o noua");
            } else {
                text = format!("{text}{separator}{option}");
            }
        }
        text
    });
    prop_oneof![6 => list, 2 => hostile(), 1 => any::<String>()]
}

/// A value of a key of the options JSON: right for `key`, hostile, or of another type.
fn value(key: &'static str) -> BoxedStrategy<Value> {
    let right: BoxedStrategy<String> = match key {
        "bucket" => "[a-z0-9]{3,12}".boxed(),
        "url" => select(
            &[
                "oss-cn-a.aliyuncs.com",
                "https://host.example:443",
                "10.1.2.3:80",
            ][..],
        )
        .prop_map(str::to_owned)
        .boxed(),
        "path" => "/[a-z ._~%$]{1,8}(/[a-z]{1,4}){0,3}".boxed(),
        "otherOpts" => other_opts().boxed(),
        "sigVersion" => select(&["v1", "v4", "V4", ""][..])
            .prop_map(str::to_owned)
            .boxed(),
        "kubernetes.io/readwrite" => select(&["ro", "rw"][..]).prop_map(str::to_owned).boxed(),
        "kubernetes.io/fsGroup" => "[0-9]{1,6}".boxed(),
        "ramRole" => Just("node-role".to_owned()).boxed(),
        "akSecret" => Just(SECRET.to_owned()).boxed(),
        _ => "[A-Za-z0-9-]{1,8}".boxed(),
    };
    prop_oneof![
        30 => right.prop_map(Value::from),
        2 => hostile().prop_map(Value::from),
        1 => select(vec![json!(null), json!(1), json!([]), json!({"a": "b"})]),
    ]
    .boxed()
}

fn options_json() -> impl Strategy<Value = Value> {
    let key = |key: &'static str, chance: f64| {
        prop::option::weighted(chance, value(key)).prop_map(move |v| v.map(|v| (key.to_owned(), v)))
    };
    let known = (
        key("bucket", 0.98),
        key("url", 0.98),
        key("path", 0.4),
        key("otherOpts", 0.8),
        key("akId", 0.9),
        key("akSecret", 0.9),
        key("sigVersion", 0.2),
        key("region", 0.2),
        key("kubernetes.io/readwrite", 0.5),
        (key("kubernetes.io/fsGroup", 0.2), key("ramRole", 0.05)),
    );
    let unknown = prop::option::weighted(0.2, (hostile(), hostile().prop_map(Value::from)));
    (known, unknown).prop_map(|((a, b, c, d, e, f, g, h, i, (j, k)), unknown)| {
        let all = [a, b, c, d, e, f, g, h, i, j, k, unknown];
        Value::Object(all.into_iter().flatten().collect::<Map<_, _>>())
    })
}

fn config() -> impl Strategy<Value = &'static str> {
    select(
        &[
            "{}",
            r#"{"allowedOptions":["use_cache=/var/cache/oss/","suid","credential_process"]}"#,
            r#"{"defaultOptions":["noua","no_check_certificate"]}"#,
            r#"{"nodeCredentials":{"buckets":["*"],"ramRole":"node-role"}}"#,
            r#"{"nodeCredentials":{"buckets":["docker"]}}"#,
        ][..],
    )
}

/// A field of mountinfo: printable, escaped as the kernel does it, or neither.
fn field() -> impl Strategy<Value = String> {
    prop_oneof![
        select(
            &[
                "1",
                "27",
                "0:50",
                "/",
                "/a",
                "/a/b",
                "/a\\040b",
                "\\134",
                "\\777",
                "\\0",
                "-",
                "rw",
                "shared:1",
                "fuse.ossfs",
                "\\",
                "99999999999999999999",
                "/\u{ff}"
            ][..]
        )
        .prop_map(str::to_owned),
        "[ -~]{0,8}",
        any::<String>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 500,
        // A case that failed is kept below, by hand, with a name.
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_options_are_refused_or_start_one_ossfs_and_nothing_else(
        json in options_json(),
        config in config(),
    ) {
        let config = Config::parse(config).unwrap();
        check_request(&json.to_string(), &config);
    }

    #[test]
    fn any_text_for_the_options_is_refused_or_starts_one_ossfs(
        json in prop_oneof![hostile(), any::<String>()],
        config in config(),
    ) {
        check_request(&json, &Config::parse(config).unwrap());
    }

    #[test]
    fn a_refusal_repeats_no_secret(json in options_json(), place in 0..4_usize) {
        let mut json = json;
        let secret = base64::Engine::encode(
            &base64::engine::general_purpose::STANDARD,
            format!("{SECRET}\u{0}"),
        );
        match place {
            0 => json["akSecret"] = json!(SECRET),
            1 => json["akSecret"] = json!([SECRET]),
            2 => json["akSecret"] = json!(format!("{SECRET}:{SECRET}\n")),
            _ => json["kubernetes.io/secret/akSecret"] = json!(secret),
        }
        let text = json.to_string();
        if let Err(refusal) = MountRequest::parse(&text, &Config::default()) {
            prop_assert!(!refusal.contains(SECRET), "{}", refusal);
            prop_assert!(!refusal.contains(&secret), "{}", refusal);
        }
    }

    #[test]
    fn options_stay_the_same_when_written_and_read_again(text in other_opts()) {
        check_other_opts(&text);
    }

    #[test]
    fn a_passwd_file_has_one_line_of_three_parts(id in hostile(), secret in hostile()) {
        if let Ok(pair) = KeyPair::parse(&id, &secret) {
            let line = pair.passwd_line("docker");
            prop_assert_eq!(line.matches('\n').count(), 1);
            prop_assert_eq!(line.trim_end().split(':').count(), 3);
            prop_assert!(!line.trim_end().contains(char::is_whitespace));
        }
    }

    #[test]
    fn any_mountinfo_is_read(
        lines in prop::collection::vec(prop::collection::vec(field(), 0..12), 0..8),
    ) {
        let text: Vec<String> = lines.iter().map(|fields| fields.join(" ")).collect();
        check_mountinfo(&text.join("\n"));
    }

    #[test]
    fn a_mount_point_is_read_as_the_kernel_wrote_it(path in "/[^\\p{Cc}]{1,12}") {
        let mut escaped = String::new();
        for c in path.chars() {
            match c {
                ' ' | '\\' => write!(escaped, "\\{:03o}", u32::from(c)).unwrap(),
                c => escaped.push(c),
            }
        }
        let line = format!("36 1 0:50 / {escaped} rw shared:1 - fuse.ossfs ossfs rw");
        let table = MountTable::parse(&line);
        prop_assert_eq!(table.top(Path::new(&path)).map(|mount| mount.id), Some(36));
    }

    #[test]
    fn any_configuration_is_refused_or_safe(
        key in select(&["ossfs", "stateDir", "logFile", "logLevel", "mountTimeoutSeconds",
            "allowedOptions", "defaultOptions", "nodeCredentials", "x"][..]),
        text in hostile(),
        number in any::<u64>(),
        shape in 0..5_usize,
    ) {
        let value = match shape {
            0 => json!(text),
            1 => json!([text]),
            2 => json!({"buckets": [text], "ramRole": text}),
            3 => json!(number),
            _ => json!(format!("/{text}")),
        };
        check_config(&json!({key: value}).to_string());
        check_config(&text);
    }
}

#[test]
fn the_strategies_reach_what_passes() {
    // Else the properties above would hold of refusals alone.
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut draw = |what: &dyn Fn(&mut proptest::test_runner::TestRunner) -> bool| {
        (0..1000).filter(|_| what(&mut runner)).count()
    };
    let config = Config::default();
    let requests = draw(&|runner| {
        let json = options_json().new_tree(runner).unwrap().current();
        check_request(&json.to_string(), &config)
    });
    let options =
        draw(&|runner| check_other_opts(&other_opts().new_tree(runner).unwrap().current()));
    assert!(requests > 100, "{requests} of 1000 requests pass");
    assert!(options > 300, "{options} of 1000 option lists pass");
}

/// Inputs larger than Linux passes in one argument.
#[test]
fn inputs_without_bound_are_refused_at_once() {
    let config = Config::default();
    let with = |key: &str, value: &str| {
        let mut json = json!({"bucket": "docker", "url": "host", "akId": "i", "akSecret": SECRET});
        json[key] = json!(value);
        json.to_string()
    };
    let many = |count: usize, text: &str| text.repeat(count);
    for (name, json) in [
        ("a value of 1 MiB", with("path", &many(1 << 20, "a"))),
        ("a secret of 1 MiB", with("akSecret", &many(1 << 20, "a"))),
        ("a key of 1 MiB", with(&many(1 << 20, "a"), "x")),
        (
            "10,000 options",
            with("otherOpts", &many(10_000, "-o noua ")),
        ),
        (
            "a million options",
            with("otherOpts", &many(1_000_000, "-o noua ")),
        ),
        ("1 MiB of NUL", with("bucket", &many(1 << 20, "\0"))),
        ("a million lists", many(1_000_000, "[")),
        ("a million objects", many(1_000_000, "{\"a\":")),
        ("64 MiB of blanks", many(64 << 20, " ")),
    ] {
        let since = Instant::now();
        let refusal = MountRequest::parse(&json, &config).err();
        let refusal = refusal.unwrap_or_else(|| panic!("{name} passed"));
        assert!(
            refusal.len() < 300 && !refusal.contains(SECRET),
            "{name}: {refusal}"
        );
        assert!(since.elapsed() < Duration::from_secs(1), "{name}");
    }
}

#[test]
fn the_nodes_identity_is_never_a_default() {
    let none = r#"{"bucket":"docker","url":"host","ramRole":"node-role"}"#;
    let open = r#"{"nodeCredentials":{"buckets":["docker"],"ramRole":"node-role"}}"#;
    assert!(!check_request(none, &Config::default()));
    assert!(check_request(none, &Config::parse(open).unwrap()));
    let request = MountRequest::parse(none, &Config::parse(open).unwrap());
    let credentials = request.map(|request| request.credentials);
    assert!(matches!(credentials, Ok(CredentialSource::RamRole(role)) if role == "node-role"));
}

#[test]
fn the_seeds_of_the_fuzz_targets_hold() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    let mut seeds = 0;
    let mut each = |target: &str, check: &dyn Fn(&str)| {
        for entry in std::fs::read_dir(corpus.join(target)).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            check(&String::from_utf8_lossy(&bytes));
            seeds += 1;
        }
    };
    each("options_json", &|text| {
        check_request(&text[1..], &Config::default());
    });
    each("other_opts", &|text| {
        check_other_opts(text);
    });
    each("mountinfo", &check_mountinfo);
    each("config", &|text| {
        check_config(text);
    });
    assert!(seeds >= 39, "{seeds} seeds");
}
