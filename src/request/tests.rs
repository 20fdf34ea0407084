use super::{CredentialSource, MountRequest};
use crate::config::Config;

/// The request of a minimal volume with `more` options, on a node with `config`.
fn parse_on(config: &str, more: &str) -> Result<MountRequest, String> {
    let comma = if more.is_empty() { "" } else { "," };
    let json =
        format!(r#"{{"bucket":"docker","url":"oss-cn-hangzhou.aliyuncs.com"{comma}{more}}}"#);
    MountRequest::parse(&json, &Config::parse(config).unwrap())
}

const KEYS: &str = r#""akId":"i","akSecret":"s""#;

fn options(config: &str, more: &str) -> Vec<String> {
    parse_on(config, &format!("{KEYS},{more}"))
        .unwrap_or_else(|e| panic!("{more}: {e}"))
        .options
        .iter()
        .map(|o| o.render())
        .collect()
}

fn error(config: &str, more: &str) -> String {
    parse_on(config, more)
        .err()
        .unwrap_or_else(|| panic!("{more} passed"))
}

#[test]
fn options_follow_from_the_volume_and_the_node() {
    let defaults = r#"{"defaultOptions":["max_stat_cache_size=7","noua"]}"#;
    for (config, more, expected) in [
        (
            "{}",
            r#""otherOpts":"-o max_stat_cache_size=0 -o allow_other""#,
            "max_stat_cache_size=0",
        ),
        (
            "{}",
            r#""otherOpts":"-o allow_root,nosuid,nodev,noexec""#,
            "noexec",
        ),
        ("{}", r#""otherOpts":"-o uid=1 -o uid=2""#, "uid=1 uid=2"),
        (
            defaults,
            r#""otherOpts":"-ouid=1""#,
            "max_stat_cache_size=7 noua uid=1",
        ),
        (
            defaults,
            r#""otherOpts":"-omax_stat_cache_size=0""#,
            "noua max_stat_cache_size=0",
        ),
        (
            "{}",
            r#""kubernetes.io/mounterArgs.FsGroup":"2000""#,
            "gid=2000 umask=0000",
        ),
        ("{}", r#""kubernetes.io/fsGroup":"0""#, "gid=0 umask=0000"),
        (
            "{}",
            r#""kubernetes.io/mounterArgs.FsGroup":"2000","otherOpts":"-o gid=5""#,
            "gid=5 umask=0000",
        ),
        (
            "{}",
            r#""kubernetes.io/mounterArgs.FsGroup":"2000","otherOpts":"-o umask=0022""#,
            "umask=0022 gid=2000",
        ),
        ("{}", r#""sigVersion":"v4""#, "sigv4 region=cn-hangzhou"),
        (
            "{}",
            r#""sigVersion":"V4","region":"eu-1""#,
            "sigv4 region=eu-1",
        ),
        ("{}", r#""sigVersion":"v1""#, "sigv1"),
        ("{}", r#""region":"eu-1""#, ""),
    ] {
        assert_eq!(options(config, more).join(" "), expected, "{more}");
    }
}

#[test]
fn credentials_come_from_the_secret_then_the_options_then_the_node() {
    let node = r#"{"nodeCredentials":{"buckets":["docker"],"ramRole":"node-role"}}"#;
    // "c2lk" is "sid", "c3M=" is "ss", "c3MK" is "ss\n".
    let from_secret =
        r#""kubernetes.io/secret/akId":"c2lk","kubernetes.io/secret/akSecret":"c3MK""#;
    let other_names = r#""kubernetes.io/secret/AccessKeyId":"c2lk","kubernetes.io/secret/accesskeysecret":"c3M=""#;
    for (config, more, expected) in [
        ("{}", KEYS.to_owned(), "docker:i:s\n"),
        ("{}", from_secret.to_owned(), "docker:sid:ss\n"),
        ("{}", other_names.to_owned(), "docker:sid:ss\n"),
        (node, format!("{KEYS},{from_secret}"), "docker:sid:ss\n"),
        (node, String::new(), "node"),
        (node, r#""akId":"","akSecret":" ""#.to_owned(), "node"),
        (
            node,
            r#""ramRole":"node-role""#.to_owned(),
            "role node-role",
        ),
    ] {
        let found = match parse_on(config, &more)
            .unwrap_or_else(|e| panic!("{more}: {e}"))
            .credentials
        {
            CredentialSource::Given(pair) => pair.passwd_line("docker").to_string(),
            CredentialSource::Node => "node".to_owned(),
            CredentialSource::RamRole(role) => format!("role {role}"),
        };
        assert_eq!(found, expected, "{more}");
    }
}

#[test]
fn refuses_credentials_that_are_half_or_not_allowed() {
    let other_bucket = r#"{"nodeCredentials":{"buckets":["other"],"ramRole":"node-role"}}"#;
    let no_role = r#"{"nodeCredentials":{"buckets":["*"]}}"#;
    for (config, more, expected) in [
        ("{}", "", "no key pair"),
        (other_bucket, "", "no key pair"),
        ("{}", r#""akId":"i""#, "without akSecret"),
        (
            "{}",
            r#""akId":"STS.i","akSecret":"topsecret","securityToken":"t""#,
            "temporary keys (STS) are not supported",
        ),
        (
            "{}",
            r#""kubernetes.io/secret/akId":"c2lk","kubernetes.io/secret/akSecret":"c3M=","kubernetes.io/secret/SecurityToken":"dA==""#,
            "\"kubernetes.io/secret/securityToken\": temporary keys",
        ),
        ("{}", r#""akSecret":"topsecret""#, "without akId"),
        (
            "{}",
            r#""akId":"i","akSecret":"top secret""#,
            "contains a space",
        ),
        ("{}", r#""akId":"i:j","akSecret":"topsecret""#, "a colon"),
        (
            "{}",
            r#""kubernetes.io/secret/akId":"c2lk""#,
            "without akSecret",
        ),
        (
            "{}",
            r#""kubernetes.io/secret/akId":"c2lk","kubernetes.io/secret/akSecret":"topsecret!""#,
            "is not base64",
        ),
        (
            "{}",
            r#""kubernetes.io/secret/akId":"c2lk","kubernetes.io/secret/akSecret":"/w==""#,
            "is not text",
        ),
        (
            "{}",
            r#""kubernetes.io/secret/akId":"c2lk","kubernetes.io/secret/akSecret":"c3\nM=""#,
            "is not base64",
        ),
        ("{}", r#""ramRole":"node-role""#, "is not allowed"),
        (other_bucket, r#""ramRole":"node-role""#, "is not allowed"),
        (no_role, r#""ramRole":"node-role""#, "is not allowed"),
        (
            no_role,
            r#""ramRole":"http://169.254.0.1/x""#,
            "is not the name of a RAM role",
        ),
    ] {
        let message = error(config, more);
        assert!(message.contains(expected), "{more}: {message}");
        assert!(!message.contains("topsecret"), "{more}: {message}");
    }
}

#[test]
fn refuses_options_with_one_clear_line() {
    for (more, expected) in [
        (
            r#""otherOpts":"-o use_cache=/tmp""#,
            "option \"otherOpts\": \"use_cache\" is not allowed on this node (allowedOptions of the node configuration)",
        ),
        (
            r#""otherOpts":"-ocredential_process=touch${IFS}/x""#,
            "option \"otherOpts\": \"credential_process\" is not allowed on this node (allowedOptions of the node configuration)",
        ),
        (
            r#""kubernetes.io/readwrite":"maybe""#,
            "option \"kubernetes.io/readwrite\": \"maybe\" is neither \"ro\" nor \"rw\"",
        ),
        (
            r#""kubernetes.io/mounterArgs.FsGroup":"0,suid""#,
            "option \"kubernetes.io/mounterArgs.FsGroup\": \"0,suid\" is not the number of a group",
        ),
        (
            r#""sigVersion":"v2""#,
            "option \"sigVersion\": \"v2\" is neither \"v1\" nor \"v4\"",
        ),
        (
            r#""sigVersion":"v4","region":"a,suid""#,
            "option \"region\": \"a,suid\" is not the name of a region",
        ),
    ] {
        assert_eq!(error("{}", &format!("{KEYS},{more}")), expected);
    }
    let config = Config::default();
    for (json, expected) in [
        (r#"{"url":"a"}"#, "option \"bucket\": is required"),
        (r#"{"bucket":"docker"}"#, "option \"url\": is required"),
        (
            r#"{"bucket":"docker","url":"127.0.0.1","sigVersion":"v4","akId":"i","akSecret":"s"}"#,
            "option \"region\": is required with sigVersion \"v4\": the url does not contain it",
        ),
    ] {
        assert_eq!(
            MountRequest::parse(json, &config).err().as_deref(),
            Some(expected)
        );
    }
}

#[test]
fn read_only_and_unknown_keys() {
    let request = parse_on(
        "{}",
        &format!("{KEYS},\"kubernetes.io/readwrite\":\"ro\",\"extra\":\"x\""),
    )
    .ok()
    .unwrap();
    assert!(request.read_only);
    assert_eq!(request.notices, ["unknown option \"extra\" is ignored"]);
}
