//! The options JSON of a mount call to a `MountRequest`: everything is checked here, before the
//! call has its first effect, and nothing is checked again after it.
//!
//! All of it comes from a Pod's author, `kubernetes.io/…` keys included: kubelet copies the
//! user's options over its own.

pub(crate) mod location;
mod options_json;

use crate::config::{self, Config};
use crate::credentials::KeyPair;
use crate::options::option::{MountOption, split};
use crate::options::policy;
use crate::options::refusal::Refusal;
use crate::text::quote;
use base64::Engine as _;
use location::{Bucket, Endpoint, Location, SubDirectory};
use options_json::OptionsJson;
use zeroize::Zeroizing;

/// What kubelet puts before the keys of a Secret.
const SECRET_PREFIX: &str = "kubernetes.io/secret/";
/// kubelet's name for the Pod's fsGroup, and the one in the community's document.
const FS_GROUP: [&str; 2] = ["kubernetes.io/mounterArgs.FsGroup", "kubernetes.io/fsGroup"];
/// Names under which volumes and Secrets may have the token of temporary keys.
const TOKENS: [&str; 3] = ["securityToken", "sessionToken", "stsToken"];
const READ_WRITE: &str = "kubernetes.io/readwrite";
const OPTIONS: [&str; 11] = [
    "bucket",
    "url",
    "path",
    "akId",
    "akSecret",
    "otherOpts",
    "sigVersion",
    "region",
    "ramRole",
    "shareMount",
    "relay",
];

/// A mount call whose every part is checked.
pub(crate) struct MountRequest {
    pub(crate) location: Location,
    pub(crate) credentials: CredentialSource,
    /// The options for ossfs in order, but for those that the driver always sets.
    pub(crate) options: Vec<MountOption>,
    pub(crate) read_only: bool,
    /// Whether other Pods with the same volume may use its daemon.
    pub(crate) share: bool,
    /// Whether the mount outlives its ossfs.
    pub(crate) relay: bool,
    /// What was ignored or translated, for the log.
    pub(crate) notices: Vec<String>,
}

/// Where the credentials of a volume come from.
pub(crate) enum CredentialSource {
    /// A key pair that came with the call.
    Given(KeyPair),
    /// The node's key pair, in files that the configuration names and allows for this bucket.
    Node,
    /// The node's RAM role, allowed for this bucket.
    RamRole(String),
}

impl MountRequest {
    /// The request in the options `json` on a node with `config`. An error is one line for the
    /// Pod's author, without secrets.
    pub(crate) fn parse(json: &str, config: &Config) -> Result<Self, String> {
        let options = OptionsJson::parse(json)?;
        Self::check(&options, config).map_err(|refusal| refusal.to_string())
    }

    fn check(options: &OptionsJson, config: &Config) -> Result<Self, Refusal> {
        let mut notices: Vec<String> = options
            .keys_unless(|key| {
                OPTIONS.iter().any(|known| known.eq_ignore_ascii_case(key))
                    || key.starts_with("kubernetes.io/")
            })
            .iter()
            .map(|key| format!("unknown option {} is ignored", quote(key)))
            .collect();
        let required = |key| {
            options
                .get(key)
                .ok_or_else(|| Refusal::new(key, "is required"))
        };
        let location = Location {
            bucket: Bucket::parse(required("bucket")?)?,
            path: options
                .get("path")
                .map(SubDirectory::parse)
                .transpose()?
                .flatten(),
            endpoint: Endpoint::parse(required("url")?)?,
        };
        if let Some(hosts) = &config.allowed_endpoints
            && !location.endpoint.is_one_of(hosts)
        {
            return Err(Refusal::of_value(
                "url",
                location.endpoint.as_str(),
                "is not allowed on this node (allowedEndpoints of the node configuration)",
            ));
        }
        let read_only = match options.get(READ_WRITE) {
            None | Some("rw") => false,
            Some("ro") => true,
            Some(other) => {
                return Err(Refusal::of_value(
                    READ_WRITE,
                    other,
                    "is neither \"ro\" nor \"rw\"",
                ));
            }
        };
        let share = config.share_mounts && switch(options, "shareMount", true)?;
        let relay = switch(options, "relay", config.relay)?;
        let credentials = credentials(options, &location.bucket, config)?;
        let options = effective_options(options, &location.endpoint, config, &mut notices)?;
        Ok(Self {
            location,
            credentials,
            options,
            read_only,
            share,
            relay,
            notices,
        })
    }
}

/// The option `key`, `default` without it.
fn switch(options: &OptionsJson, key: &str, default: bool) -> Result<bool, Refusal> {
    match options.get(key) {
        None => Ok(default),
        Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(other) => Err(Refusal::of_value(
            key,
            other,
            "is neither \"true\" nor \"false\"",
        )),
    }
}

/// The options for ossfs: the node's defaults, the volume's own, and what follows from fsGroup and
/// the signature's version.
fn effective_options(
    options: &OptionsJson,
    endpoint: &Endpoint,
    config: &Config,
    notices: &mut Vec<String>,
) -> Result<Vec<MountOption>, Refusal> {
    let own = split("otherOpts", options.get("otherOpts").unwrap_or(""), notices)?;
    for option in &own {
        policy::check("otherOpts", option, &config.allowed_options)?;
    }
    let given = |list: &[MountOption], name: &str| list.iter().any(|o| o.name() == name);
    let mut effective: Vec<MountOption> = config
        .default_options
        .iter()
        .filter(|default| !given(&own, default.name()))
        .cloned()
        .collect();
    effective.extend(own);
    if given(&effective, "allow_root") {
        notices
            .push("allow_root is left out: allow_other is always set and includes root".to_owned());
    }
    // The driver sets these itself, once; allow_root and allow_other exclude each other (libfuse).
    effective.retain(|o| !matches!(o.name(), "allow_other" | "allow_root" | "nosuid" | "nodev"));

    if let Some(group) = fs_group(options)? {
        if !given(&effective, "gid") {
            effective.push(MountOption::with_value("gid", group.to_string()));
        }
        if !given(&effective, "umask") {
            effective.push(MountOption::with_value("umask", "0000"));
        }
    }
    effective.extend(signature(options, endpoint, notices)?);
    Ok(effective)
}

/// The group of the Pod's fsGroup, as a number.
fn fs_group(options: &OptionsJson) -> Result<Option<u32>, Refusal> {
    let Some((key, text)) = FS_GROUP
        .iter()
        .find_map(|key| options.get(key).map(|text| (*key, text)))
    else {
        return Ok(None);
    };
    MountOption::parse(key, &format!("gid={text}"))
        .ok()
        .and_then(|_| text.parse().ok())
        .map(Some)
        .ok_or_else(|| Refusal::of_value(key, text, "is not the number of a group"))
}

/// The options that choose the version of the request signature.
fn signature(
    options: &OptionsJson,
    endpoint: &Endpoint,
    notices: &mut Vec<String>,
) -> Result<Vec<MountOption>, Refusal> {
    let version = match options.get("sigVersion") {
        Some(version) => version.to_ascii_lowercase(),
        None => String::new(),
    };
    let region = options.get("region");
    match version.as_str() {
        "" | "v1" => {
            if region.is_some() {
                notices.push("option region is ignored without sigVersion \"v4\"".to_owned());
            }
            let v1 = (version == "v1").then(|| MountOption::flag("sigv1"));
            Ok(v1.into_iter().collect())
        }
        "v4" => {
            let region = region.or_else(|| endpoint.region()).ok_or_else(|| {
                Refusal::new(
                    "region",
                    "is required with sigVersion \"v4\": the url does not contain it",
                )
            })?;
            MountOption::parse("region", &format!("region={region}"))
                .map_err(|_| Refusal::of_value("region", region, "is not the name of a region"))?;
            Ok(vec![
                MountOption::flag("sigv4"),
                MountOption::with_value("region", region),
            ])
        }
        other => Err(Refusal::of_value(
            "sigVersion",
            other,
            "is neither \"v1\" nor \"v4\"",
        )),
    }
}

/// The credentials of the volume: its Secret's pair, else its options' pair, else the node's.
fn credentials(
    options: &OptionsJson,
    bucket: &Bucket,
    config: &Config,
) -> Result<CredentialSource, Refusal> {
    let node = config
        .node_credentials
        .as_ref()
        .filter(|node| node.allows(bucket.as_str()));
    if let Some(role) = options.get("ramRole") {
        if !config::is_role_name(role) {
            return Err(Refusal::of_value(
                "ramRole",
                role,
                "is not the name of a RAM role: letters, digits and \"-\" are expected",
            ));
        }
        if node.is_none_or(|node| node.ram_role.as_deref() != Some(role)) {
            return Err(Refusal::of_value(
                "ramRole",
                role,
                "is not allowed for this bucket on this node (nodeCredentials of the node configuration)",
            ));
        }
    }
    refuse_token(options)?;
    let from_secret = pair(
        secret(options, &["akId", "AccessKeyId"])?,
        secret(options, &["akSecret", "AccessKeySecret"])?,
        "secretRef",
    )?;
    let plain = |key| options.get(key).map(|text| Zeroizing::new(text.to_owned()));
    let pair = match from_secret {
        Some(pair) => Some(pair),
        None => pair(plain("akId"), plain("akSecret"), "akId")?,
    };
    match (pair, options.get("ramRole")) {
        (Some(_), Some(_)) => Err(Refusal::new(
            "ramRole",
            "conflicts with a key pair: set only one of them",
        )),
        (Some(pair), None) => Ok(CredentialSource::Given(pair)),
        (None, Some(role)) => Ok(CredentialSource::RamRole(role.to_owned())),
        (None, None) if node.is_some() => Ok(CredentialSource::Node),
        (None, None) => Err(Refusal::new(
            "akId",
            "no key pair: set akId and akSecret, or a secretRef, or have the node's administrator \
             allow this bucket in nodeCredentials of the node configuration",
        )),
    }
}

/// Temporary keys would pass as a pair that the store does not know. ossfs 1.91 takes the token that belongs
/// to them only from its environment, once: the volume would end with the token.
fn refuse_token(options: &OptionsJson) -> Result<(), Refusal> {
    let keys = TOKENS
        .iter()
        .flat_map(|token| [(*token).to_owned(), format!("{SECRET_PREFIX}{token}")]);
    for key in keys {
        if options.get(&key).is_some() {
            return Err(Refusal::new(
                &key,
                "temporary keys (STS) are not supported, because ossfs cannot renew their token: use a key \
                 pair without one, or ramRole",
            ));
        }
    }
    Ok(())
}

type Half = Option<Zeroizing<String>>;

/// The pair of two halves of which both or none must be there.
fn pair(id: Half, secret: Half, origin: &str) -> Result<Option<KeyPair>, Refusal> {
    match (id, secret) {
        (None, None) => Ok(None),
        (Some(id), Some(secret)) => KeyPair::parse(&id, &secret)
            .map(Some)
            .map_err(|(half, error)| Refusal::new(half, error.to_string())),
        (Some(_), None) => Err(Refusal::new(origin, "has a key id without akSecret")),
        (None, Some(_)) => Err(Refusal::new(origin, "has a secret without akId")),
    }
}

/// The decoded value of the first of `keys` that the volume's Secret has.
fn secret(options: &OptionsJson, keys: &[&str]) -> Result<Half, Refusal> {
    for key in keys {
        let key = format!("{SECRET_PREFIX}{key}");
        let Some(encoded) = options.get(&key) else {
            continue;
        };
        // Neither error may say more: both know parts of the secret.
        let decoded = base64::engine::general_purpose::STANDARD
            .decode(encoded)
            .map(Zeroizing::new)
            .map_err(|_| Refusal::new(&key, "is not base64"))?;
        let text = std::str::from_utf8(&decoded)
            .map_err(|_| Refusal::new(&key, "is not text"))?
            .trim();
        if !text.is_empty() {
            return Ok(Some(Zeroizing::new(text.to_owned())));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
