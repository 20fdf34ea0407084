//! The identity of a volume: which mount calls mean the same one, and so share a daemon.

use crate::credentials::Credentials;
use crate::kubelet::target::Target;
use crate::request::MountRequest;
use crate::request::location::Location;
use crate::text::hex;
use sha2::{Digest as _, Sha256};

/// The identity of the volume that `request` asks for with `credentials`: calls that agree in all of
/// it share one daemon, and no others. A volume that is not shared is another one at each `target`.
///
/// The parts are hashed with their lengths, so that no two lists of parts look alike.
pub(crate) fn identity(
    request: &MountRequest,
    credentials: &Credentials,
    target: &Target,
) -> String {
    // Every field is named, so that a new one cannot be forgotten here.
    let MountRequest {
        location: Location {
            bucket,
            path,
            endpoint,
        },
        // Resolved: `credentials`.
        credentials: _,
        options,
        read_only,
        share,
        relay,
        // For the log alone.
        notices: _,
    } = request;
    let exclusive_target = (!share).then_some(target);

    let mut hash = Sha256::new();
    let mut part = |text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    };
    part(bucket.as_str());
    part(path.as_ref().map_or("", |path| path.as_str()));
    part(endpoint.as_str());
    part(if *read_only { "ro" } else { "rw" });
    match credentials {
        Credentials::Keys(pair) => {
            part("keys");
            pair.hash_input().into_iter().for_each(&mut part);
        }
        Credentials::RamRole(role) => {
            part("role");
            part(role);
        }
    }
    part(exclusive_target.map_or("", Target::as_str));
    for option in options {
        part(&option.render());
    }
    if !relay {
        // No option has a NUL in it. With the relay the identity is as earlier builds made it.
        part("\0direct");
    }
    hex(&hash.finalize())[..32].to_owned()
}

#[cfg(test)]
mod tests {
    use super::identity;
    use crate::config::Config;
    use crate::credentials::{Credentials, KeyPair};
    use crate::kubelet::target::Target;
    use crate::request::MountRequest;
    use std::collections::HashSet;
    use std::ffi::OsStr;

    fn of(json: &str, credentials: &Credentials, target: &str) -> String {
        let request = MountRequest::parse(json, &Config::default());
        let request = request.unwrap_or_else(|e| panic!("{json}: {e}"));
        let target = Target::parse(OsStr::new(target)).unwrap();
        identity(&request, credentials, &target)
    }

    fn keys(id: &str, secret: &str) -> Credentials {
        Credentials::Keys(KeyPair::parse(id, secret).ok().unwrap())
    }

    #[test]
    fn volumes_that_differ_in_anything_never_share_a_daemon() {
        let json = |more: &str| {
            format!(r#"{{"bucket":"docker","url":"host","akId":"i","akSecret":"s"{more}}}"#)
        };
        let role = Credentials::RamRole("keys".to_owned());
        let pair = || keys("i", "s");
        let mut seen = HashSet::new();
        for (more, credentials, target) in [
            ("", pair(), "/a"),
            (r#","path":"/host""#, pair(), "/a"),
            (r#","otherOpts":"-o noua""#, pair(), "/a"),
            (r#","otherOpts":"-o noua,nodnscache""#, pair(), "/a"),
            (r#","otherOpts":"-o nodnscache,noua""#, pair(), "/a"),
            (r#","kubernetes.io/readwrite":"ro""#, pair(), "/a"),
            (r#","kubernetes.io/fsGroup":"5""#, pair(), "/a"),
            (r#","shareMount":"false""#, pair(), "/a"),
            (r#","shareMount":"false""#, pair(), "/b"),
            (r#","relay":"false""#, pair(), "/a"),
            ("", keys("is", "s"), "/a"),
            ("", keys("i", "ss"), "/a"),
            ("", role, "/a"),
        ] {
            assert!(
                seen.insert(of(&json(more), &credentials, target)),
                "{more} {target}"
            );
        }
        for other in [
            r#"{"bucket":"dockers","url":"host","akId":"i","akSecret":"s"}"#,
            r#"{"bucket":"docker","url":"hosts","akId":"i","akSecret":"s"}"#,
        ] {
            assert!(seen.insert(of(other, &pair(), "/a")), "{other}");
        }
    }

    #[test]
    fn shared_volumes_have_the_identity_that_builds_before_gave_them() {
        let json = r#"{"bucket":"docker","url":"host","akId":"i","akSecret":"s"}"#;
        let first = of(json, &keys("i", "s"), "/a");
        assert_eq!(first, of(json, &keys("i", "s"), "/b"));
        assert_eq!(first, "2c6d4a2bc50c5c56bc2216ce0fd53abf");
    }
}
