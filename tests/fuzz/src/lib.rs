//! The driver's parsers with what holds for them, one function for each fuzz target. The driver has
//! no library; its modules are included as they stand.

mod invariants;

/// The modules of the driver's `src` that parse, under the paths that they have there.
#[path = "../../../src"]
#[allow(dead_code, reason = "the driver uses the rest")]
mod driver {
    pub(crate) mod config;
    pub(crate) mod credentials;
    pub(crate) mod request;
    pub(crate) mod mounts {
        pub(crate) mod table;
    }
    pub(crate) mod ossfs {
        pub(crate) mod arguments;
    }
}

// As at the driver's own root.
use config::Config;
use driver::{config, credentials, mounts, ossfs, request};

/// Node configurations under which the options of a volume are read; the first byte chooses one.
const CONFIGS: [&str; 4] = [
    "{}",
    r#"{"allowedOptions":["use_cache=/var/cache/oss/","suid","credential_process"]}"#,
    r#"{"defaultOptions":["noua","no_check_certificate"]}"#,
    r#"{"nodeCredentials":{"buckets":["*"],"ramRole":"node-role"}}"#,
];

/// The options JSON of a mount call, behind a byte that chooses the node configuration.
pub fn options_json(data: &[u8]) {
    let Some((first, json)) = data.split_first() else {
        return;
    };
    let (Ok(json), Ok(config)) = (
        std::str::from_utf8(json),
        Config::parse(CONFIGS[usize::from(*first) % CONFIGS.len()]),
    ) else {
        return;
    };
    invariants::check_request(json, &config);
}

/// The text of `otherOpts`: alone, and in a volume that is right otherwise.
pub fn other_opts(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    invariants::check_other_opts(text);
    let json = serde_json::json!({
        "bucket": "docker", "url": "host", "akId": "keyid", "akSecret": "secret",
        "otherOpts": text,
    });
    invariants::check_request(&json.to_string(), &Config::default());
}

/// The text of `/proc/self/mountinfo`.
pub fn mountinfo(data: &[u8]) {
    invariants::check_mountinfo(&String::from_utf8_lossy(data));
}

/// The node configuration.
pub fn config(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        invariants::check_config(text);
    }
}
