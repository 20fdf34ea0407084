//! Attacks that are refused before the call has its first effect: no root is needed to see it.

use crate::DRIVER;
use crate::shell::WORDS;
use crate::table;
use base64::Engine as _;
use serde_json::{Map, Value, json};
use std::ffi::OsStr;
use std::path::PathBuf;
use support::{Answer, Kubelet, Status};
use tempfile::TempDir;

/// The secret of every attack's volume.
pub(crate) const SECRET: &str = "sEcrEt+hOstIle/0123456789";
/// The longest message that a Pod Event should have to bear, in bytes.
const MAX_MESSAGE: usize = 900;

/// A node where nothing has happened yet, and on which nothing may happen.
pub(crate) struct Untouched {
    directory: TempDir,
    pub(crate) kubelet: Kubelet,
}

impl Untouched {
    pub(crate) fn new() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("oss-hostile-")
            .tempdir()
            .unwrap();
        let config = directory.path().join("config.json");
        let node = Self {
            kubelet: Kubelet {
                driver: DRIVER.into(),
                environment: vec![("OSS_FLEXVOLUME_CONFIG".into(), config.into())],
            },
            directory,
        };
        std::fs::create_dir(node.path("canary")).unwrap();
        // Nobody may execute it: an attack that passes is told by the message about that.
        std::fs::write(node.path("ossfs"), "").unwrap();
        node.configure(&json!({}));
        node
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn configure(&self, more: &Value) {
        let mut config = json!({
            "ossfs": self.path("ossfs"),
            "stateDir": self.path("state"),
            "logFile": self.path("oss.log"),
            "logLevel": "debug",
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        std::fs::write(self.path("config.json"), config.to_string()).unwrap();
    }

    /// `text` with the place of the canary in it.
    pub(crate) fn arm(&self, text: &str) -> String {
        let canary = self.path("canary/bird").display().to_string();
        text.replace("CANARY", &canary)
    }

    /// Calls mount with `json` as it stands.
    pub(crate) fn mount(&self, json: &str) -> Answer {
        let target = self.path("pods/u/volumes/alicloud~oss/v");
        self.kubelet
            .call(&[OsStr::new("mount"), target.as_os_str(), OsStr::new(json)])
    }

    /// Checks that `answer` is a Failure that a Pod author can use, and that nothing has happened.
    #[track_caller]
    pub(crate) fn assert_refused(&self, name: &str, answer: &Answer, says: &[&str]) {
        assert_eq!(answer.status, Status::Failure, "{name}: {}", answer.raw);
        let message = &answer.message;
        assert!(message.len() < MAX_MESSAGE, "{name}: {message}");
        assert!(
            !message.chars().any(char::is_control),
            "{name}: {message:?}"
        );
        for part in says {
            assert!(
                message.contains(part),
                "{name}: {message} does not say {part:?}"
            );
        }
        assert!(!message.contains("internal error"), "{name}: a panic");
        self.assert_untouched(name, answer);
    }

    /// Checks that nothing has happened, and that the secret is nowhere.
    #[track_caller]
    pub(crate) fn assert_untouched(&self, name: &str, answer: &Answer) {
        let log = std::fs::read_to_string(self.path("oss.log")).unwrap_or_default();
        let encoded = base64::engine::general_purpose::STANDARD.encode(SECRET);
        for secret in [SECRET, encoded.as_str()] {
            assert!(!answer.raw.contains(secret), "{name}: {}", answer.raw);
            assert!(!log.contains(secret), "{name}: the secret is in the log");
        }
        let canaries = self.path("canary").read_dir().unwrap().count();
        assert_eq!(canaries, 0, "{name}: a command has run");
        assert!(!self.path("state").exists(), "{name}: a state directory");
        let own = self.directory.path().display().to_string();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&own), "{name}: something is mounted");
        assert_eq!(processes(&own), [] as [String; 0], "{name}: a process runs");
    }
}

/// The command lines of processes that have `text` among their arguments.
fn processes(text: &str) -> Vec<String> {
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(text))
        .collect()
}

/// One attack through the options of a volume that is right but for `change`; a null takes a key
/// away.
struct Attack {
    name: String,
    change: Value,
    config: Value,
    says: Vec<String>,
}

impl Attack {
    fn new(name: impl Into<String>, change: Value, says: &[&str]) -> Self {
        Self {
            name: name.into(),
            change,
            config: json!({}),
            says: says.iter().map(|part| (*part).to_owned()).collect(),
        }
    }

    /// The attack `name` with `value` as the option `key`.
    fn on(key: &str, name: &str, value: &str) -> Self {
        let change = Value::Object(Map::from_iter([(key.to_owned(), json!(value))]));
        Self::new(
            format!("{key}: {name}"),
            change,
            &[&format!("option {key:?}: ")],
        )
    }

    fn under(mut self, config: Value) -> Self {
        self.config = config;
        self
    }
}

fn options(change: &Value) -> Value {
    let mut options = json!({
        "bucket": "docker",
        "url": "oss-cn-hangzhou.aliyuncs.com",
        "akId": "LTAIhostile",
        "akSecret": SECRET,
        "kubernetes.io/readwrite": "rw",
        "kubernetes.io/pod.uid": "u",
    });
    for (key, value) in change.as_object().into_iter().flatten() {
        match value {
            Value::Null => {
                options.as_object_mut().unwrap().remove(key);
            }
            value => options[key] = value.clone(),
        }
    }
    options
}

/// Runs `attacks`, of which there are at least `least`.
fn assert_all_refused(least: usize, attacks: &[Attack]) {
    assert!(attacks.len() >= least, "{} attacks are left", attacks.len());
    let node = Untouched::new();
    for attack in attacks {
        node.configure(&attack.config);
        let json = node.arm(&options(&attack.change).to_string());
        let answer = node.mount(&json);
        let says: Vec<&str> = attack.says.iter().map(String::as_str).collect();
        node.assert_refused(&attack.name, &answer, &says);
    }
}

#[test]
fn the_volume_that_the_attacks_change_is_right_itself() {
    let node = Untouched::new();
    let answer = node.mount(&options(&json!({})).to_string());
    // It gets as far as looking for the program, which the attacks must not.
    assert!(
        answer.message.contains("is not an executable file"),
        "{}",
        answer.raw
    );
    node.assert_untouched("the right volume", &answer);
}

#[test]
fn words_for_a_shell_are_refused_in_every_field_with_a_form() {
    let mut attacks = Vec::new();
    for words in WORDS {
        for key in ["bucket", "url", "sigVersion", "kubernetes.io/readwrite"] {
            attacks.push(Attack::on(key, words.name, words.text));
        }
        for key in ["kubernetes.io/mounterArgs.FsGroup", "kubernetes.io/fsGroup"] {
            attacks.push(Attack::on(key, words.name, words.text));
        }
        attacks.push(Attack::on(
            "bucket",
            words.name,
            &format!("docker{}", words.text),
        ));
        attacks.push(Attack::on(
            "url",
            words.name,
            &format!("http://host{}", words.text),
        ));
        attacks.push(Attack::new(
            format!("region: {}", words.name),
            json!({"sigVersion": "v4", "region": words.text}),
            &["option \"region\": "],
        ));
        attacks.push(Attack::new(
            format!("ramRole: {}", words.name),
            json!({"akId": null, "akSecret": null, "ramRole": words.text}),
            &["option \"ramRole\": "],
        ));
        // The separators and "-o" around it are otherOpts's own, so each value is put after "=".
        for option in ["uid=", "umask=", "instance_name=", "dbglevel=", ""] {
            attacks.push(Attack::on(
                "otherOpts",
                words.name,
                &format!("-o {option}{}", words.text),
            ));
        }
        attacks.push(Attack::on("otherOpts", words.name, words.text));
        if !words.is_path {
            attacks.push(Attack::on("path", words.name, &format!("/{}", words.text)));
        }
        attacks.push(Attack::on("path", words.name, words.text));
        if !words.is_key {
            attacks.push(Attack::on("akId", words.name, words.text));
            attacks.push(Attack::on("akSecret", words.name, words.text));
        }
    }
    assert_all_refused(300, &attacks);
}

#[test]
fn sensitive_and_driver_owned_options_are_refused_however_they_are_written() {
    let mut attacks = Vec::new();
    for class in ["sensitive", "driver-owned"] {
        for row in table::rows(class) {
            for option in row.spellings("CANARY") {
                let ways = if option.starts_with('-') {
                    vec![
                        option.clone(),
                        format!("-s {option}"),
                        format!("-o noua {option} -o noua"),
                        format!("-o {option}"),
                        format!("-o noua,{option}"),
                    ]
                } else {
                    vec![
                        format!("-o {option}"),
                        format!("-o{option}"),
                        format!("-o noua,{option}"),
                        format!("-o noua -o {option} -o noua"),
                    ]
                };
                for way in ways {
                    let says = ["option \"otherOpts\": ", row.name];
                    attacks.push(Attack::new(
                        format!("{} {way}", row.class),
                        json!({"otherOpts": way}),
                        &says,
                    ));
                }
            }
        }
    }
    assert_all_refused(240, &attacks);
}

/// `otherOpts` that try to bring an option in another way than as one argument after one `-o`.
const SMUGGLED: &[(&str, &str)] = &[
    ("suid after a comma", "-o uid=1,suid"),
    ("suid after two commas", "-o uid=1,,suid"),
    ("nothing between commas", "-o ,"),
    ("a comma at the end", "-o noua,"),
    ("suid after a comma in a value", "-o instance_name=a,suid"),
    ("-o after a comma", "-o noua,-o,suid"),
    ("-o twice", "-o -o suid"),
    ("-o stuck together", "-o-osuid"),
    ("-o with nothing after it", "-o"),
    ("-o at the end", "-o noua -o"),
    ("-o with an equals sign", "-o=suid"),
    ("a switch in place of -o's option", "-o -f"),
    ("a word without -o", "suid"),
    ("a word after an option", "-o uid=1 suid"),
    ("a mount point", "-o noua /etc"),
    ("a second bucket", "other:/ -o noua"),
    ("a value apart from its name", "-o uid= 1"),
    ("a name apart from its value", "-o uid =1"),
    ("a tab between options", "-o noua\t-o suid"),
    ("a tab in an option", "-o\tsuid"),
    ("a new line between options", "-o noua\n-o suid"),
    ("a new line in a value", "-o instance_name=a\n-osuid"),
    ("a carriage return", "-o noua\r-o suid"),
    ("a vertical tab", "-o noua\u{b}-o suid"),
    ("a form feed", "-o noua\u{c}-o suid"),
    ("a next line character", "-o noua\u{85}-o suid"),
    ("a NUL after an option", "-o noua\0,suid"),
    ("a NUL in a name", "-o su\0id"),
    ("a delete character", "-o su\u{7f}id"),
    ("a no-break space", "-o noua\u{a0}-o\u{a0}suid"),
    ("an ideographic space", "-o noua\u{3000}-osuid"),
    ("a line separator", "-o noua\u{2028}-o suid"),
    ("single quotes", "-o 'suid'"),
    ("double quotes", "-o \"suid\""),
    ("a quoted comma", "-o instance_name='a,suid'"),
    ("a quoted blank", "-o instance_name=\"a b\""),
    ("a backslash in a name", "-o cred\\ential_process=CANARY"),
    ("a backslash before a comma", "-o instance_name=a\\,suid"),
    (
        "a hexadecimal escape in a name",
        "-o cred\\x65ntial_process=CANARY",
    ),
    (
        "an octal escape in a name",
        "-o cred\\145ntial_process=CANARY",
    ),
    ("an octal comma", "-o instance_name=a\\054suid"),
    ("a hexadecimal comma", "-o instance_name=a\\x2csuid"),
    ("a backslash at the end", "-o noua\\"),
    ("an escaped blank", "-o instance_name=a\\ -osuid"),
    ("a percent escape", "-o %73uid"),
    ("a percent NUL", "-o noua%00suid"),
    ("an entity", "-o &#115;uid"),
    ("a variable", "-o $suid"),
    ("upper case", "-o SUID"),
    ("mixed case", "-o Credential_Process=CANARY"),
    ("full-width letters", "-o \u{ff53}uid"),
    ("a Cyrillic letter", "-o su\u{456}d"),
    ("a zero-width space", "-o su\u{200b}id"),
    ("a byte order mark", "-o \u{feff}suid"),
    ("a combining accent", "-o suid\u{301}"),
    ("a mark that turns the line round", "-o \u{202e}dius"),
    ("the end of options", "--"),
    ("the end of options and a word", "-- suid"),
    ("the foreground", "-f"),
    ("a log level", "-d"),
    ("libfuse's debugging", "-d -d"),
    ("the help", "-h"),
    ("the version", "-V"),
    ("the long help", "--help"),
    ("the long version", "--version"),
    ("a long option with a value", "--url=http://127.0.0.1"),
    ("a switch and -o in one", "-so suid"),
    ("a switch with a value", "-s=suid"),
    ("-f stuck to -s", "-sf"),
    ("help that parses -o", "-ho url=x"),
    ("three dashes", "---"),
    ("one dash", "-"),
    ("an en dash", "\u{2013}o suid"),
    ("no name", "-o =suid"),
    ("an empty value", "-o uid="),
    ("a missing value", "-o uid"),
    ("two equals signs", "-o uid=1=2"),
    ("a flag with a value", "-o allow_other=suid"),
    ("suid with a value", "-o suid=1"),
    ("suid with an empty value", "-o suid="),
    ("a misspelt option", "-o allow_othr"),
    ("a name of a mount command", "-o remount"),
    ("a bind", "-o bind"),
    ("a loop device", "-o loop"),
    ("suid after an option that 1.91 dropped", "-o noxattr,suid"),
    (
        "a command after a dropped option",
        "-o sigv2,credential_process=CANARY",
    ),
    (
        "suid in a translated option",
        "-o default_permission=777,suid",
    ),
    (
        "a translated option without a mode",
        "-o default_permission=",
    ),
    (
        "a translated option with a word",
        "-o default_permission=suid",
    ),
    (
        "a translated option out of range",
        "-o default_permission=77777",
    ),
];

/// Values that are not of their option's type.
const VALUES: &[&str] = &[
    "uid=-1",
    "uid=+1",
    "uid=0x0",
    "uid=1e3",
    "uid=root",
    "uid=4294967295",
    "uid=4294967296",
    "uid=99999999999999999999999",
    "uid=\u{ff11}",
    "gid=-1",
    "gid=0;0",
    "umask=9",
    "umask=00000",
    "umask=-022",
    "umask=0o22",
    "mp_umask=u+s",
    "retries=0",
    "retries=-1",
    "retries=11",
    "connect_timeout=1s",
    "connect_timeout=601",
    "readwrite_timeout=",
    "readwrite_timeout=601",
    "multireq_max=0",
    "parallel_count=1.5",
    "multipart_size=10M",
    "max_dirty_data=-2",
    "max_dirty_data=49",
    "max_dirty_data=--1",
    "free_space_ratio=101",
    "list_object_max_keys=999",
    "max_stat_cache_size=-1",
    "entry_timeout=.5",
    "entry_timeout=1.",
    "entry_timeout=-1",
    "entry_timeout=inf",
    "attr_timeout=nan",
    "remember=1e9",
    "instance_name=a/b",
    "instance_name=-d",
    "instance_name=a%n",
    "instance_name=$(CANARY)",
    "default_acl=private;x",
    "storage_class=/etc/passwd",
    "region=../x",
    "endpoint=http://x",
    "cloudbox_id=a:b",
    "servicepath=x",
    "servicepath=/../x",
    "servicepath=//x",
    "servicepath=//",
    "servicepath=/./x",
    "use_xattr=2",
    "dbglevel=trace",
    "dbglevel=DEBUG",
    "intr_signal=0",
    "intr_signal=65",
    "user=a/b",
    "user=-x",
    "use_sse=-x",
];

#[test]
fn options_are_smuggled_in_by_no_separator_escape_or_spelling() {
    let attacks: Vec<Attack> = SMUGGLED
        .iter()
        .map(|(name, text)| Attack::on("otherOpts", name, text))
        .collect();
    assert_all_refused(85, &attacks);
}

#[test]
fn values_of_the_wrong_type_are_refused_with_the_name_of_their_option() {
    let attacks: Vec<Attack> = VALUES
        .iter()
        .map(|option| {
            let name = option.split('=').next().unwrap_or_default();
            Attack::new(
                *option,
                json!({"otherOpts": format!("-o {option}")}),
                &["option \"otherOpts\": ", name],
            )
        })
        .collect();
    assert_all_refused(50, &attacks);
}

#[test]
fn buckets_urls_and_paths_lead_nowhere_else() {
    let long = |length: usize| "a".repeat(length);
    let mut attacks = Vec::new();
    for value in [
        "..",
        ".",
        "/",
        "/etc",
        "../../etc",
        "docker:/etc",
        "docker:",
        "docker/..",
        "docker,suid",
        "docker -o suid",
        "-o",
        "-h",
        "--help",
        "docker@host",
        "docker.host",
        "docker.",
        "http://docker",
        "docker%2fetc",
        "docker\\x2fetc",
        "Docker",
        "dock_er",
        "dock er",
        "dock\0er",
        "\u{ff44}ocker",
        "docker\u{200b}",
        "docker\u{202e}",
        "-docker",
        "docker-",
        "do",
        &long(64),
        &long(10_000),
    ] {
        attacks.push(Attack::on("bucket", "a name that is none", value));
    }
    for value in [
        "file:///etc/passwd",
        "ftp://host",
        "gopher://host:70/x",
        "unix:/run/containerd/containerd.sock",
        "/run/docker.sock",
        "//host",
        "http:host",
        "http:/host",
        "http:///host",
        "http://",
        "https://",
        "HTTP://host",
        "http://http://host",
        "http:\\\\host",
        "host/path",
        "host/../x",
        "host?x=y",
        "host#x",
        "host,suid",
        "http://host,passwd_file=CANARY",
        "host -o suid",
        "host\\x2csuid",
        "user:password@host",
        "http://169.254.169.254@host",
        "host@169.254.169.254",
        "host:",
        "host:0",
        "host:65536",
        "host:-1",
        "host:+80",
        "host:80:80",
        "host:80/x",
        "host: 80",
        "[::1]",
        "[::1]:80",
        "::1",
        ".host",
        "host..x",
        "-host",
        "host-",
        "ho st",
        "ho\0st",
        "ho\tst",
        "h\u{f6}st",
        "host\u{202e}",
        "host%00",
        "host%2f",
        "host\u{3002}x",
        "*.host",
        "{host,other}",
        "host[1-9]",
        &long(64),
        &"a.".repeat(130),
        &long(10_000),
    ] {
        attacks.push(Attack::on("url", "no host and port alone", value));
    }
    for value in [
        "a",
        "..",
        "./a",
        "../a",
        "/..",
        "/.",
        "//",
        "//etc",
        "/a//b",
        "/a/../b",
        "/a/./b",
        "/a/..",
        "/../../etc/passwd",
        "/a/../../../etc",
        "-o suid",
        "~/x",
        "C:\\x",
        "/a,suid",
        "/a\\,suid",
        "/a\\x2csuid",
        "/a\\054suid",
        "/a\\..\\..",
        "/a\"b",
        "/a'b",
        "/a\tb",
        "/a\nb",
        "/a\0b",
        "/a\u{a0}b",
        "/a\u{202e}b",
        "/a\u{200b}b",
        "/a\u{2028}b",
        &format!("/{}", long(1023)),
        &format!("/{}", long(10_000)),
    ] {
        attacks.push(Attack::on("path", "no directory of the bucket", value));
    }
    assert_all_refused(115, &attacks);
}

#[test]
fn what_is_not_one_flat_object_of_strings_is_refused_without_showing_it() {
    let node = Untouched::new();
    let right = options(&json!({})).to_string();
    let inside = right.trim_start_matches('{').trim_end_matches('}');
    let wrap = |more: &str| format!("{{{inside},{more}}}");
    let secret = format!("\"akSecret\":\"{SECRET}\"");
    let cases: Vec<(&str, String)> = vec![
        ("nothing", String::new()),
        ("a blank", " ".to_owned()),
        ("null", "null".to_owned()),
        ("a list", format!("[{right}]")),
        ("a string", json!(right).to_string()),
        ("the secret alone", format!("\"{SECRET}\"")),
        ("the secret without quotes", SECRET.to_owned()),
        ("an end that is missing", format!("{{{inside}")),
        ("a second object", format!("{right}{right}")),
        ("a word after it", format!("{right} suid")),
        ("a comma at the end", wrap("")),
        ("a comment", format!("/*{SECRET}*/{right}")),
        ("single quotes", right.replace('"', "'")),
        ("a byte order mark", format!("\u{feff}{right}")),
        ("a number", wrap("\"path\":1")),
        ("a secret number", "{\"akSecret\":4747474747}".to_owned()),
        ("a truth value", wrap("\"path\":true")),
        ("null as a value", wrap("\"path\":null")),
        (
            "a list as a value",
            wrap(&format!("\"path\":[\"{SECRET}\"]")),
        ),
        (
            "an object as a value",
            wrap(&format!("\"path\":{{{secret}}}")),
        ),
        ("a key twice", wrap(&secret)),
        (
            "a key twice in another case",
            wrap(&format!("\"AKSECRET\":\"{SECRET}x\"")),
        ),
        ("a bucket in two cases", wrap("\"Bucket\":\"other\"")),
        (
            "a path in two cases",
            wrap("\"path\":\"/a\",\"PATH\":\"/b\""),
        ),
        ("an escaped key twice", wrap("\"\\u0062ucket\":\"other\"")),
        (
            "kubelet's own key twice",
            wrap("\"kubernetes.io/readwrite\":\"ro\""),
        ),
        (
            "kubelet's own key in another case",
            wrap("\"Kubernetes.IO/ReadWrite\":\"ro\""),
        ),
        ("a lone surrogate", wrap("\"path\":\"\\ud800\"")),
        (
            "a control character that is not escaped",
            wrap("\"path\":\"a\u{1}b\""),
        ),
        ("a wrong escape", wrap("\"path\":\"\\x2f\"")),
        ("600 keys", wrap(&many_keys(600))),
        ("a deep list", format!("{{\"path\":{}", "[".repeat(60_000))),
        ("a deep object", "{\"a\":".repeat(20_000)),
        ("no bucket", options(&json!({"bucket": null})).to_string()),
        (
            "an empty bucket",
            options(&json!({"bucket": " \n"})).to_string(),
        ),
        ("no url", options(&json!({"url": null})).to_string()),
    ];
    assert!(cases.len() >= 36);
    for (name, json) in cases {
        let answer = node.mount(&json);
        node.assert_refused(name, &answer, &["option"]);
        assert!(!answer.raw.contains("4747"), "{name}: {}", answer.raw);
    }
}

fn many_keys(count: usize) -> String {
    let keys: Vec<String> = (0..count).map(|n| format!("\"k{n}\":\"\"")).collect();
    keys.join(",")
}

#[test]
fn broken_credentials_are_refused_and_not_shown() {
    let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let of_secret = |value: &str| {
        json!({
            "akId": null, "akSecret": null,
            "kubernetes.io/secret/akId": encode(b"LTAIhostile"),
            "kubernetes.io/secret/akSecret": value,
        })
    };
    let encoded = encode(SECRET.as_bytes());
    let (front, back) = encoded.split_at(8);
    let mut attacks: Vec<Attack> = [
        ("plain text", SECRET.to_owned()),
        (
            "a cut-off end",
            encoded.trim_end_matches('=')[..9].to_owned(),
        ),
        ("a new line inside", format!("{front}\n{back}")),
        ("a blank inside", format!("{front} {back}")),
        (
            "the alphabet of URLs",
            encode(&[0xfb, 0xff]).replace('+', "-").replace('/', "_"),
        ),
        ("too much padding", format!("{encoded}====")),
        ("padding in the middle", format!("{front}=={back}")),
        ("a NUL", format!("{front}\0{back}")),
        ("no ASCII", format!("\u{ff21}{encoded}")),
        ("bytes that are no text", encode(&[0xff, 0xfe, 0x00])),
        (
            "a NUL in the decoded text",
            encode(format!("{SECRET}\0x").as_bytes()),
        ),
        (
            "a new line in the decoded text",
            encode(format!("{SECRET}\nother:a:b").as_bytes()),
        ),
        (
            "a colon in the decoded text",
            encode(format!("{SECRET}:x").as_bytes()),
        ),
        (
            "a blank in the decoded text",
            encode(format!("{SECRET} x").as_bytes()),
        ),
        (
            "an escape sequence",
            encode(format!("{SECRET}\u{1b}[0m").as_bytes()),
        ),
        (
            "a decoded text that is too long",
            encode(SECRET.repeat(20).as_bytes()),
        ),
        ("a blank text", encode(b" \n")),
        ("an empty text", String::new()),
    ]
    .into_iter()
    .map(|(name, value)| {
        Attack::new(
            format!("a Secret with {name}"),
            of_secret(&value),
            &["option"],
        )
    })
    .collect();
    let plain = |id: Value, secret: Value| json!({"akId": id, "akSecret": secret});
    let line = format!("{SECRET}\nother:id:{SECRET}");
    for (name, change) in [
        (
            "a second line of the passwd file",
            plain(json!("i"), json!(line)),
        ),
        (
            "a second line by the key id",
            plain(json!(line), json!("s")),
        ),
        (
            "a key for another bucket",
            plain(json!("other:i"), json!(SECRET)),
        ),
        (
            "a colon in the secret",
            plain(json!("i"), json!(format!("{SECRET}:x"))),
        ),
        (
            "a blank in the secret",
            plain(json!("i"), json!(format!("{SECRET} x"))),
        ),
        (
            "a NUL in the secret",
            plain(json!("i"), json!(format!("{SECRET}\0"))),
        ),
        (
            "a line separator",
            plain(json!("i"), json!(format!("{SECRET}\u{2028}x"))),
        ),
        (
            "a secret that is too long",
            plain(json!("i"), json!(SECRET.repeat(20))),
        ),
        (
            "a key id that is too long",
            plain(json!("i".repeat(257)), json!(SECRET)),
        ),
        ("half a pair", plain(Value::Null, json!(SECRET))),
        ("the other half", plain(json!(SECRET), Value::Null)),
        ("nothing", plain(Value::Null, Value::Null)),
        ("an empty pair", plain(json!(""), json!("\n"))),
    ] {
        attacks.push(Attack::new(name, change, &["option \"ak"]));
    }
    assert_all_refused(31, &attacks);
}

#[test]
fn the_node_lends_its_identity_only_where_the_configuration_says_so() {
    let node = |buckets: Value, role: Value| {
        json!({"nodeCredentials": {
            "akIdFile": "/no/such/id", "akSecretFile": "/no/such/secret",
            "buckets": buckets, "ramRole": role,
        }})
    };
    let none = json!({"akId": null, "akSecret": null});
    let role = |name: &str| json!({"akId": null, "akSecret": null, "ramRole": name});
    let mut attacks = Vec::new();
    for (name, config) in [
        ("no configuration", json!({})),
        ("no bucket", node(json!([]), json!("node-role"))),
        ("another bucket", node(json!(["other"]), json!("node-role"))),
        (
            "a bucket that begins alike",
            node(json!(["docke", "dockers"]), json!("node-role")),
        ),
        (
            "a pattern that is none",
            node(json!(["d*", "docke?", "**", ""]), json!("node-role")),
        ),
        (
            "the bucket in capitals",
            node(json!(["DOCKER"]), json!("node-role")),
        ),
    ] {
        let says = ["nodeCredentials of the node configuration"];
        attacks.push(
            Attack::new(format!("the node's keys under {name}"), none.clone(), &says)
                .under(config.clone()),
        );
        attacks.push(
            Attack::new(
                format!("the node's role under {name}"),
                role("node-role"),
                &says,
            )
            .under(config),
        );
    }
    let open = node(json!(["*"]), json!("node-role"));
    for other in ["other-role", "node-rol", "node-role2", "Node-Role"] {
        attacks.push(
            Attack::new(
                format!("the role {other}"),
                role(other),
                &["option \"ramRole\": "],
            )
            .under(open.clone()),
        );
    }
    for text in [
        "http://169.254.0.1/x",
        "http:",
        "https://host/role",
        "node-role,suid",
        "node-role -o suid",
        "../node-role",
        "node/role",
        "-node-role",
        "node_role",
        "node\u{2010}role",
        "node-role\0",
        "node-role?x",
    ] {
        attacks.push(
            Attack::new(
                format!("a role like {text:?}"),
                role(text),
                &["option \"ramRole\": "],
            )
            .under(open.clone()),
        );
    }
    attacks.push(
        Attack::new(
            "the role beside a key pair",
            json!({"ramRole": "node-role"}),
            &["option \"ramRole\": ", "conflicts with a key pair"],
        )
        .under(open.clone()),
    );
    attacks.push(
        Attack::new(
            "the role as an option of ossfs",
            json!({"otherOpts": "-o ram_role=node-role"}),
            &["\"ram_role\" is not allowed"],
        )
        .under(open.clone()),
    );
    attacks.push(
        Attack::new(
            "keys without an end by the credentials of a public bucket",
            json!({"akId": null, "akSecret": null, "otherOpts": "-o public_bucket=1"}),
            &["option"],
        )
        .under(open),
    );
    assert_all_refused(31, &attacks);
}

#[test]
fn keys_of_kubelet_that_a_pod_author_overwrites_are_checked_like_any_other() {
    let mut attacks = Vec::new();
    for value in [
        "RW",
        "rw ro",
        "ro,rw",
        "rw,suid",
        "0",
        "true",
        "rw\0",
        "\u{ff52}w",
    ] {
        attacks.push(Attack::on("kubernetes.io/readwrite", "neither", value));
    }
    for key in ["kubernetes.io/mounterArgs.FsGroup", "kubernetes.io/fsGroup"] {
        for value in [
            "root",
            "-1",
            "+1",
            "0x0",
            "1e3",
            "0,suid",
            "2000 -o suid",
            "2000,umask=0",
            "4294967295",
            "4294967296",
            "99999999999999999999",
            "\u{ff12}",
            "2000\0",
            "2000\\x2csuid",
        ] {
            attacks.push(Attack::on(key, "no number of a group", value));
        }
    }
    assert_all_refused(36, &attacks);
}

/// Words that are a secret in the wrong place, where a message may not repeat them.
#[test]
fn a_secret_in_the_wrong_place_is_not_repeated() {
    let mut attacks = Vec::new();
    for text in [
        format!("secretAccessKey={SECRET}"),
        format!("-o accessKeyId=x,secretAccessKey={SECRET}"),
        format!("-o noua secretAccessKey={SECRET}"),
        format!("-o -secretAccessKey={SECRET}"),
        format!("--secretAccessKey={SECRET}"),
        format!("-secretAccessKey={SECRET}"),
        format!("-o passwd={SECRET}"),
        format!("-o secretAccesKey={SECRET}"),
        format!("-o credlib_opts={SECRET}"),
        format!("-o credlib_opts={SECRET}\\x"),
        format!("-o credlib_opts=\"{SECRET}\""),
        format!("-o credential_process={SECRET}'"),
        format!("-o url={SECRET}"),
        format!("-o public_bucket={SECRET}\\"),
        format!("-o suid={SECRET}"),
        format!("-o secretAccessKey {SECRET}"),
        format!("-o noua {SECRET}"),
        SECRET.to_owned(),
    ] {
        let name = text.replace(SECRET, "SECRET");
        attacks.push(Attack::new(
            name,
            json!({"otherOpts": text}),
            &["option \"otherOpts\": "],
        ));
    }
    for text in [
        format!("http://key:{SECRET}@host"),
        format!("http://host/?OSSAccessKeyId=x&Signature={SECRET}"),
        format!("host?Signature={SECRET}"),
    ] {
        let name = text.replace(SECRET, "SECRET");
        attacks.push(Attack::new(
            name,
            json!({"url": text}),
            &["option \"url\": "],
        ));
    }
    assert_all_refused(21, &attacks);
}
