//! The profile `RuntimeDefault`: the one that CRI-O and podman have, from containers/common, in the
//! runtime's format for a container with given capabilities.

use serde_json::{Value, json};
use std::path::Path;
use support::node;

/// From Debian's package golang-github-containers-common.
pub const PROFILE: &str = "/usr/share/containers/seccomp.json";

/// What that of containerd and Docker refuses, also to a container with CAP_SYS_ADMIN.
const REFUSED: [&str; 1] = ["pivot_root"];

/// The profile of a container with `capabilities` (`CAP_…`).
pub fn runtime_default(capabilities: &[String]) -> Value {
    let text = std::fs::read_to_string(PROFILE).unwrap_or_else(|e| {
        panic!("{PROFILE}: {e}: apt-get install golang-github-containers-common")
    });
    convert(&serde_json::from_str(&text).unwrap(), capabilities)
}

/// The architecture as profiles name it, with what the kernel runs beside it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn convert(profile: &Value, capabilities: &[String]) -> Value {
    let own = format!("SCMP_ARCH_{}", std::env::consts::ARCH.to_uppercase());
    let maps = profile["archMap"].as_array().unwrap();
    let map = maps.iter().find(|map| map["architecture"] == own.as_str());
    let mut architectures = vec![json!(own)];
    architectures.extend(
        map.and_then(|map| map["subArchitectures"].as_array().cloned())
            .unwrap(),
    );
    let rules = profile["syscalls"].as_array().unwrap().iter();
    let rules = rules
        .filter(|rule| applies(rule, capabilities))
        .map(|rule| {
            let mut names = rule["names"].as_array().unwrap().clone();
            names.retain(|name| !REFUSED.iter().any(|refused| name == refused));
            let mut converted = json!({"names": names, "action": rule["action"]});
            for name in ["errnoRet", "args"] {
                if rule[name].is_number()
                    || rule[name].as_array().is_some_and(|args| !args.is_empty())
                {
                    converted[name] = rule[name].clone();
                }
            }
            converted
        });
    let refused = json!({"names": REFUSED, "action": "SCMP_ACT_ERRNO", "errnoRet": 1});
    json!({
        "defaultAction": profile["defaultAction"],
        "defaultErrnoRet": profile["defaultErrnoRet"],
        "architectures": architectures,
        "syscalls": rules.chain([refused]).collect::<Vec<_>>(),
    })
}

/// Whether a rule is for this architecture and these capabilities: all of `includes`, none of
/// `excludes`.
fn applies(rule: &Value, capabilities: &[String]) -> bool {
    let is_here = |condition: &str, name: &str, value: &Value| match name {
        "arches" => value == architecture(),
        "caps" => capabilities.iter().any(|own| value == own.as_str()),
        _ => panic!("{condition}: {name}"),
    };
    let holds = |condition: &str, all: bool| {
        let lists = rule[condition].as_object().into_iter().flatten();
        lists.into_iter().all(|(name, list)| {
            let mut list = list.as_array().unwrap().iter();
            match (all, name.as_str()) {
                (true, "caps") => list.all(|value| is_here(condition, name, value)),
                (true, _) => list.any(|value| is_here(condition, name, value)),
                (false, _) => !list.any(|value| is_here(condition, name, value)),
            }
        })
    };
    holds("includes", true) && holds("excludes", false)
}

#[test]
fn system_calls_come_with_the_capability_that_they_need() {
    if !Path::new(PROFILE).exists() {
        return node::skip_because("golang-github-containers-common is not installed");
    }
    let action = |name: &str, capabilities: &[&str]| {
        let owned: Vec<String> = capabilities.iter().map(ToString::to_string).collect();
        let profile = runtime_default(&owned);
        let rules = profile["syscalls"].as_array().unwrap().clone();
        let has = |rule: &&Value| rule["names"].as_array().unwrap().contains(&json!(name));
        rules.iter().find(has).map(|rule| rule["action"].clone())
    };
    assert_eq!(action("bpf", &[]), Some(json!("SCMP_ACT_ERRNO")));
    assert_eq!(
        action("bpf", &["CAP_SYS_ADMIN"]),
        Some(json!("SCMP_ACT_ALLOW"))
    );
    assert_eq!(
        action("chroot", &["CAP_SYS_ADMIN"]),
        Some(json!("SCMP_ACT_ERRNO"))
    );
    assert_eq!(action("openat", &[]), Some(json!("SCMP_ACT_ALLOW")));
    assert_eq!(
        action("pivot_root", &["CAP_SYS_ADMIN"]),
        Some(json!("SCMP_ACT_ERRNO"))
    );
    assert_eq!(
        action("kexec_load", &["CAP_SYS_ADMIN"]),
        Some(json!("SCMP_ACT_ERRNO"))
    );
}
