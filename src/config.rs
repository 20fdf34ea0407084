//! The node configuration: a small JSON file that the node's administrator may write, for mount
//! calls above all. Without it the defaults hold.

mod endpoints;
mod network;
mod selinux;

use crate::options::option::MountOption;
use crate::options::policy::{self, Allowed};
use crate::sys::root_only::read_trusted;
use crate::text::is_normal_path;
use anyhow::{Context as _, Result, anyhow, bail};
pub(crate) use endpoints::AllowedHost;
use serde::{Deserialize, Deserializer, Serialize};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the configuration is looked for.
pub const DEFAULT_FILE: &str = "/etc/alicloud-oss/config.json";
/// The variable of kubelet's environment that names another file.
pub const FILE_VARIABLE: &str = "OSS_FLEXVOLUME_CONFIG";

/// What the administrator decides for one node. Unknown keys are errors: a misspelt limit must not
/// be ignored.
#[derive(Deserialize, Debug)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Config {
    /// The FUSE daemon: a name to look up in the standard directories, or an absolute path.
    pub ossfs: String,
    /// The state directory, an absolute path.
    #[serde(deserialize_with = "state_path")]
    pub state_dir: PathBuf,
    #[serde(deserialize_with = "absolute_path")]
    pub log_file: PathBuf,
    pub log_level: LogLevel,
    pub launcher: Launcher,
    #[serde(rename = "mountTimeoutSeconds", deserialize_with = "seconds")]
    pub mount_timeout: Duration,
    #[serde(rename = "unmountTimeoutSeconds", deserialize_with = "seconds")]
    pub unmount_timeout: Duration,
    /// After how long an ossfs is ended that has not finished since the last unmount of its volume.
    #[serde(rename = "finishTimeoutSeconds", deserialize_with = "long_seconds")]
    pub(crate) finish_timeout: Duration,
    /// Whether requests pass through `oss serve`, so that a mount outlives its ossfs.
    pub(crate) relay: bool,
    /// Whether ossfs runs in a sandbox.
    pub(crate) sandbox: Sandbox,
    /// The most memory that a volume may use, in bytes.
    #[serde(deserialize_with = "memory")]
    pub(crate) memory_limit: u64,
    /// After how long an ossfs that leaves a statfs unanswered is killed and replaced. The other name
    /// is that of earlier builds.
    #[serde(
        rename = "hungAfterSeconds",
        alias = "abortHungAfterSeconds",
        deserialize_with = "seconds"
    )]
    pub(crate) hung_after: Duration,
    /// While no ossfs answers, requests fail after so long; absent: they wait.
    #[serde(rename = "requestTimeoutSeconds", deserialize_with = "some_seconds")]
    pub(crate) request_timeout: Option<Duration>,
    /// On a disk: below it each ossfs has a directory for its temporary files.
    #[serde(deserialize_with = "state_path")]
    pub temporary_dir: PathBuf,
    /// Whether Pods with the same volume share one daemon.
    pub share_mounts: bool,
    /// Options for every volume, before the volume's own.
    #[serde(deserialize_with = "default_options")]
    pub(crate) default_options: Vec<MountOption>,
    /// Sensitive options that volumes may use.
    #[serde(deserialize_with = "allowed_options")]
    pub(crate) allowed_options: Vec<Allowed>,
    /// The hosts that volumes may name as their endpoint. Absent: every host. Link-local and metadata
    /// addresses are refused before, whatever is here.
    #[serde(deserialize_with = "allowed_hosts")]
    pub(crate) allowed_endpoints: Option<Vec<AllowedHost>>,
    /// The proxy through which ossfs reaches stores with an https url.
    #[serde(deserialize_with = "https_proxy")]
    pub(crate) https_proxy: Option<String>,
    /// Hosts that are reached without it, with commas between them.
    #[serde(deserialize_with = "no_proxy")]
    pub(crate) no_proxy: String,
    /// A file with the certificates of private authorities. ossfs reads it after the node's own did not
    /// verify a certificate, and repeats the request with it.
    #[serde(deserialize_with = "some_path")]
    pub(crate) ca_bundle: Option<PathBuf>,
    /// The SELinux label of every file of a volume, where SELinux is on.
    #[serde(deserialize_with = "selinux::context")]
    pub(crate) se_linux_context: Option<String>,
    /// Credentials of the node for volumes without any. Absent: such volumes are refused.
    pub node_credentials: Option<NodeCredentials>,
}

/// Whether ossfs runs in a sandbox.
#[derive(Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Sandbox {
    On,
    /// As root, and without namespaces: for finding faults.
    Off,
}

/// How ossfs is started.
#[derive(Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Launcher {
    /// As a unit where systemd runs, else directly.
    Auto,
    /// As an instance of systemd's template unit, which restarts it.
    Unit,
    /// In a scope of systemd, outside kubelet's cgroup.
    Scope,
    /// As a process of its own session.
    Direct,
}

/// How much is logged.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// What went wrong in the driver.
    Error,
    /// Also what may need attention.
    Warn,
    /// Also a line for each call.
    Info,
    /// Also each program that is run.
    Debug,
}

/// The node's own key pair and RAM role, and the buckets they may be used for.
#[derive(Deserialize, Debug)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct NodeCredentials {
    #[serde(deserialize_with = "absolute_path")]
    pub ak_id_file: PathBuf,
    #[serde(deserialize_with = "absolute_path")]
    pub ak_secret_file: PathBuf,
    /// The node's RAM role, if volumes may ask for it with `ramRole`.
    #[serde(deserialize_with = "ram_role")]
    pub ram_role: Option<String>,
    /// Names of buckets; `*` for every bucket.
    pub buckets: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ossfs: "ossfs".to_owned(),
            state_dir: "/run/alicloud-oss".into(),
            log_file: "/var/log/alicloud/flexvolume_oss.log".into(),
            log_level: LogLevel::Info,
            launcher: Launcher::Auto,
            mount_timeout: Duration::from_secs(30),
            unmount_timeout: Duration::from_secs(30),
            finish_timeout: Duration::from_secs(24 * 3600),
            relay: true,
            sandbox: Sandbox::On,
            memory_limit: 1 << 30,
            hung_after: Duration::from_secs(30),
            request_timeout: None,
            temporary_dir: "/var/lib/alicloud-oss".into(),
            share_mounts: true,
            default_options: Vec::new(),
            allowed_options: Vec::new(),
            allowed_endpoints: None,
            https_proxy: None,
            no_proxy: String::new(),
            ca_bundle: None,
            se_linux_context: None,
            node_credentials: None,
        }
    }
}

impl Default for NodeCredentials {
    /// The files of the old Go driver, for no bucket.
    fn default() -> Self {
        Self {
            ak_id_file: "/etc/.volumeak/akId".into(),
            ak_secret_file: "/etc/.volumeak/akSecret".into(),
            ram_role: None,
            buckets: Vec::new(),
        }
    }
}

impl NodeCredentials {
    /// Whether volumes of `bucket` may use the node's credentials.
    pub(crate) fn allows(&self, bucket: &str) -> bool {
        self.buckets.iter().any(|b| b == bucket || b == "*")
    }
}

impl Config {
    /// The configuration in `text`. An error names the key and the line.
    pub fn parse(text: &str) -> Result<Self> {
        let config = serde_json::from_str(text).map_err(|e| match faulty_key(text) {
            Some(key) => anyhow!("key {key:?}: {e}"),
            None => anyhow!(e),
        })?;
        // serde takes an array for an object without names.
        if !text.trim_start().starts_with('{') {
            bail!("it begins with an array: a JSON object is expected");
        }
        Ok(config)
    }

    /// The configuration of this node, from the file that `variable` (the value of
    /// `OSS_FLEXVOLUME_CONFIG`) names, else from the usual one. Only the usual file may be missing.
    pub fn load(variable: Option<OsString>) -> Result<Self> {
        let named = variable
            .filter(|value| !value.is_empty())
            .map(PathBuf::from);
        let path = named.as_deref().unwrap_or(Path::new(DEFAULT_FILE));
        let text = match read_trusted(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && named.is_none() => {
                return Ok(Self::default());
            }
            Err(e) => bail!("read node configuration {}: {e}", path.display()),
        };
        Self::parse(&text).with_context(|| format!("node configuration {}", path.display()))
    }
}

/// The first key of the JSON object `text` that is no configuration by itself: serde's own message
/// names the line, and not always the key.
fn faulty_key(text: &str) -> Option<String> {
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).ok()?;
    object.into_iter().find_map(|(key, value)| {
        let single = serde_json::json!({ &key: value }).to_string();
        serde_json::from_str::<Config>(&single)
            .is_err()
            .then_some(key)
    })
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    at_most(3600, deserializer)
}

/// A time of up to a week.
fn long_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    at_most(7 * 24 * 3600, deserializer)
}

fn at_most<'de, D: Deserializer<'de>>(most: u64, deserializer: D) -> Result<Duration, D::Error> {
    let seconds = u64::deserialize(deserializer)?;
    if !(1..=most).contains(&seconds) {
        return Err(serde::de::Error::custom(format!(
            "{seconds} is not between 1 and {most} seconds"
        )));
    }
    Ok(Duration::from_secs(seconds))
}

/// Bytes, as a number with one of Kubernetes' binary suffixes.
fn memory<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_memory(&text).ok_or_else(|| {
        serde::de::Error::custom(format!(
            "{text:?} is not an amount of memory: use a number with Mi or Gi, from 64Mi to 1024Gi"
        ))
    })
}

fn parse_memory(text: &str) -> Option<u64> {
    let (number, factor) = match (text.strip_suffix("Mi"), text.strip_suffix("Gi")) {
        (Some(number), _) => (number, 1 << 20),
        (_, Some(number)) => (number, 1 << 30),
        _ => return None,
    };
    if !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let bytes = number.parse::<u64>().ok()?.checked_mul(factor)?;
    (64 << 20..=1024 << 30).contains(&bytes).then_some(bytes)
}

fn some_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    seconds(deserializer).map(Some)
}

fn absolute_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    let path = String::deserialize(deserializer)?;
    if !is_normal_path(&path) || path.ends_with('/') {
        return Err(serde::de::Error::custom(format!(
            "{path:?} is not an absolute path without \".\" and \"..\""
        )));
    }
    Ok(path.into())
}

/// The state directory goes to ossfs as part of an option, where a comma would split it.
fn state_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    let path = absolute_path(deserializer)?;
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"/._-".contains(b);
    if !path.as_os_str().as_encoded_bytes().iter().all(plain) {
        return Err(serde::de::Error::custom(format!(
            "{path:?}: use letters, digits, \".\", \"_\" and \"-\" in it"
        )));
    }
    Ok(path)
}

fn default_options<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<MountOption>, D::Error> {
    Vec::<String>::deserialize(deserializer)?
        .iter()
        .map(|text| {
            let option =
                MountOption::parse("defaultOptions", text).map_err(serde::de::Error::custom)?;
            policy::check_default(&option).map_err(serde::de::Error::custom)?;
            Ok(option)
        })
        .collect()
}

fn allowed_options<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Allowed>, D::Error> {
    Vec::<String>::deserialize(deserializer)?
        .iter()
        .map(|text| Allowed::parse(text).map_err(serde::de::Error::custom))
        .collect()
}

fn allowed_hosts<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<AllowedHost>>, D::Error> {
    let texts = Option::<Vec<String>>::deserialize(deserializer)?;
    let parse = |text: &String| AllowedHost::parse(text).map_err(serde::de::Error::custom);
    texts
        .map(|texts| texts.iter().map(parse).collect())
        .transpose()
}

fn https_proxy<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| network::parse_proxy(&text).map_err(serde::de::Error::custom))
        .transpose()
}

fn no_proxy<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let hosts = Vec::<String>::deserialize(deserializer)?;
    network::parse_no_proxy(&hosts).map_err(serde::de::Error::custom)
}

fn some_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    absolute_path(deserializer).map(Some)
}

fn ram_role<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let role = Option::<String>::deserialize(deserializer)?;
    match role {
        Some(role) if !is_role_name(&role) => Err(serde::de::Error::custom(format!(
            "{role:?} is not the name of a RAM role: letters, digits and \"-\" are expected"
        ))),
        role => Ok(role),
    }
}

/// Whether `text` is the name of a RAM role, and not a URL that ossfs would fetch.
pub(crate) fn is_role_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && !text.starts_with('-')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::{Config, Launcher, NodeCredentials, Sandbox};
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    #[test]
    fn an_empty_object_is_the_default() {
        let config = Config::parse("{}").unwrap();
        assert_eq!(config.ossfs, "ossfs");
        assert_eq!(config.state_dir.to_str(), Some("/run/alicloud-oss"));
        assert_eq!(config.mount_timeout, Duration::from_secs(30));
        assert!(config.node_credentials.is_none());
    }

    #[test]
    fn an_array_is_no_configuration() {
        let error = Config::parse(" []").unwrap_err().to_string();
        assert_eq!(error, "it begins with an array: a JSON object is expected");
    }

    #[test]
    fn takes_every_key() {
        let config = Config::parse(
            r#"{"ossfs":"/usr/bin/s3fs","stateDir":"/run/x","logFile":"/var/log/x.log","logLevel":"debug",
            "launcher":"direct","relay":true,"sandbox":"off","memoryLimit":"512Mi",
            "hungAfterSeconds":50,"requestTimeoutSeconds":120,"temporaryDir":"/data/oss","shareMounts":false,"mountTimeoutSeconds":5,
            "httpsProxy":"http://proxy.example:3128","noProxy":["a.example"],"caBundle":"/etc/ca.pem","unmountTimeoutSeconds":6,"finishTimeoutSeconds":604800,
            "seLinuxContext":"system_u:object_r:container_file_t:s0",
            "defaultOptions":["max_stat_cache_size=0","noua"],
            "allowedOptions":["use_cache=/var/cache/oss/","no_check_certificate"],
            "nodeCredentials":{"akIdFile":"/a","akSecretFile":"/b","buckets":["docker"],"ramRole":"node-role"}}"#,
        )
        .unwrap();
        assert_eq!(config.launcher, Launcher::Direct);
        assert_eq!(config.hung_after, Duration::from_secs(50));
        assert_eq!(config.memory_limit, 512 << 20);
        assert_eq!(config.finish_timeout, Duration::from_secs(604_800));
        let label = config.se_linux_context.as_deref();
        assert_eq!(label, Some("system_u:object_r:container_file_t:s0"));
        assert!(config.relay && config.sandbox == Sandbox::Off);
        assert_eq!(config.default_options.len(), 2);
        assert_eq!(config.allowed_options.len(), 2);
        let node = config.node_credentials.unwrap();
        assert!(node.allows("docker") && !node.allows("dockers"));
    }

    #[test]
    fn the_old_files_are_the_default_for_no_bucket() {
        let node = NodeCredentials::default();
        assert_eq!(node.ak_id_file.to_str(), Some("/etc/.volumeak/akId"));
        assert!(!node.allows("docker"));
    }

    #[test]
    fn reads_only_files_that_root_alone_can_write() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(&path, r#"{"ossfs":"x"}"#).unwrap();
        let load = || Config::load(Some(path.clone().into()));
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        assert_eq!(load().unwrap().ossfs, "x");
        for (mode, problem) in [
            (0o646, "it is world-writable"),
            (0o664, "it is group-writable"),
            (0o620, "it is group-writable"),
        ] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            let error = load().unwrap_err().to_string();
            assert!(error.ends_with(problem), "{mode:o}: {error}");
        }
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o444)).unwrap();
        assert_eq!(load().unwrap().ossfs, "x");
        std::fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(load().unwrap_err().to_string().contains("is not a file"));
        assert!(Config::load(Some("/dev/zero".into())).is_err());
        assert!(Config::load(Some("/no/such/file".into())).is_err());
    }

    #[test]
    fn errors_name_key_and_line() {
        for (text, expected) in [
            ("", "EOF while parsing a value at line 1 column 0"),
            ("{\n\"ossf\":1}", "key \"ossf\": unknown field `ossf`"),
            (
                "{\n\"mountTimeoutSeconds\":\"5\"}",
                "key \"mountTimeoutSeconds\": invalid type: string \"5\", expected u64 at line 2",
            ),
            (
                "{\"mountTimeoutSeconds\":0}",
                "key \"mountTimeoutSeconds\": 0 is not between",
            ),
            (
                "{\"finishTimeoutSeconds\":604801}",
                "key \"finishTimeoutSeconds\": 604801 is not between 1 and 604800 seconds",
            ),
            (
                "{\"seLinuxContext\":\"container_file_t\"}",
                "key \"seLinuxContext\": \"container_file_t\" is not an SELinux label",
            ),
            (
                "{\"stateDir\":\"run\"}",
                "key \"stateDir\": \"run\" is not an absolute path",
            ),
            (
                "{\"stateDir\":\"/run/a,b\"}",
                "key \"stateDir\": \"/run/a,b\": use letters",
            ),
            ("{\"stateDir\":\"/\"}", "key \"stateDir\""),
            (
                "{\"memoryLimit\":\"1G\"}",
                "key \"memoryLimit\": \"1G\" is not an amount of memory",
            ),
            ("{\"memoryLimit\":\"1Mi\"}", "key \"memoryLimit\""),
            (
                "{\"sandbox\":\"none\"}",
                "key \"sandbox\": unknown variant `none`",
            ),
            (
                "{\"launcher\":\"shell\"}",
                "key \"launcher\": unknown variant `shell`",
            ),
            (
                "{\"allowedOptions\":[\"uid\"]}",
                "key \"allowedOptions\": uid is always allowed",
            ),
            (
                "{\"defaultOptions\":[\"url=x\"]}",
                "key \"defaultOptions\": \"url\" is not allowed",
            ),
            (
                "{\"allowedEndpoints\":[\"*aliyuncs.com\"]}",
                "key \"allowedEndpoints\": \"*aliyuncs.com\" is not a host, \"*.\" and a domain, or \"*\"",
            ),
            (
                "{\"httpsProxy\":\"http://u:p@proxy:3128\"}",
                "key \"httpsProxy\": it is not a proxy",
            ),
            (
                "{\"noProxy\":[\"a,b\"]}",
                "key \"noProxy\": \"a,b\" is not a host",
            ),
            (
                "{\"caBundle\":\"ca.pem\"}",
                "key \"caBundle\": \"ca.pem\" is not an absolute path",
            ),
            (
                "{\"nodeCredentials\":{\"bucket\":[]}}",
                "key \"nodeCredentials\": unknown field `bucket`",
            ),
            (
                "{\"nodeCredentials\":{\"ramRole\":\"http://x\"}}",
                "key \"nodeCredentials\"",
            ),
            ("{} x", "trailing characters"),
            (
                "{\"ossfs\":\"a\",\"ossfs\":\"b\"}",
                "duplicate field `ossfs`",
            ),
        ] {
            let error = format!("{:#}", Config::parse(text).unwrap_err());
            assert!(error.starts_with(expected), "{text}: {error}");
            assert!(error.contains("line ") || error.contains("key "), "{error}");
        }
    }
}
