//! Which single options may pass. It is an allow-list over options that are already split and
//! typed: tuning and identity pass, sensitive ones where the node's administrator named them,
//! driver-owned ones never.

use super::option::MountOption;
use super::refusal::Refusal;
use super::table::Class;
use crate::descriptor::OSSFS;
use crate::text::is_normal_path;

/// The options that label a mount for SELinux. The administrator sets one label for all volumes.
const LABELS: [&str; 4] = ["context", "fscontext", "defcontext", "rootcontext"];
const LABELS_ARE_SET: &str =
    "seLinuxContext of the node configuration sets the label of all volumes";

/// An entry of `allowedOptions` in the node configuration: what makes a sensitive option pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Allowed {
    name: &'static str,
    value: AllowedValue,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum AllowedValue {
    Any,
    Exactly(String),
    /// A path below this directory, which ends in a slash.
    Below(String),
}

impl Allowed {
    /// The entry of `name`, `name=value` or `name=/directory/`. Only names of options that need
    /// permission make sense here; anything else is an error that says so.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        let (name, class, _) = OSSFS
            .option(name)
            .ok_or_else(|| format!("{name:?} is not an option of ossfs"))?;
        match class {
            Class::Sensitive if LABELS.contains(&name) => {
                return Err(format!("{name} can never be allowed: {LABELS_ARE_SET}"));
            }
            Class::Sensitive => {}
            Class::Tuning | Class::Identity => {
                return Err(format!("{name} is always allowed, leave it out"));
            }
            Class::DriverOwned(why) => {
                return Err(format!("{name} can never be allowed: {why}"));
            }
        }
        let value = match value {
            None => AllowedValue::Any,
            Some(path) if path.starts_with('/') && path.ends_with('/') => {
                if !is_normal_path(path) || path == "/" {
                    return Err(format!(
                        "{text:?}: the directory must be absolute, without \".\" and \"..\", and not the root"
                    ));
                }
                AllowedValue::Below(path.to_owned())
            }
            Some(value) => {
                MountOption::parse("allowedOptions", text).map_err(|e| e.to_string())?;
                AllowedValue::Exactly(value.to_owned())
            }
        };
        Ok(Self { name, value })
    }

    fn permits(&self, option: &MountOption) -> bool {
        self.name == option.name()
            && match &self.value {
                AllowedValue::Any => true,
                AllowedValue::Exactly(value) => option.value() == Some(value),
                AllowedValue::Below(directory) => option.value().is_some_and(|path| {
                    is_normal_path(path)
                        && path
                            .strip_prefix(directory.as_str())
                            .is_some_and(|rest| !rest.is_empty())
                }),
            }
    }
}

/// Whether `option`, written in the field `field` of a volume, passes on a node that allows
/// `allowed`. A refusal never shows the value: it may be a key.
pub(crate) fn check(field: &str, option: &MountOption, allowed: &[Allowed]) -> Result<(), Refusal> {
    let name = option.name();
    let refuse = |problem: String| Err(Refusal::new(field, problem));
    match OSSFS.option(name).map(|(_, class, _)| class) {
        Some(Class::Tuning | Class::Identity) => Ok(()),
        Some(Class::Sensitive) if LABELS.contains(&name) => {
            refuse(format!("\"{name}\" is not allowed: {LABELS_ARE_SET}"))
        }
        Some(Class::Sensitive) if allowed.iter().any(|entry| entry.permits(option)) => Ok(()),
        Some(Class::Sensitive) if allowed.iter().any(|entry| entry.name == name) => {
            refuse(format!(
                "\"{name}\" is not allowed on this node with this value (allowedOptions of the node configuration)"
            ))
        }
        Some(Class::Sensitive) => refuse(format!(
            "\"{name}\" is not allowed on this node (allowedOptions of the node configuration)"
        )),
        Some(Class::DriverOwned(why)) => refuse(format!("\"{name}\" is not allowed: {why}")),
        None => refuse(format!("\"{name}\" is not an option of ossfs")),
    }
}

/// Whether `option` may be used in `defaultOptions`: the administrator may use sensitive ones.
pub(crate) fn check_default(option: &MountOption) -> Result<(), String> {
    match OSSFS.option(option.name()).map(|(_, class, _)| class) {
        Some(Class::DriverOwned(why)) => {
            Err(format!("\"{}\" is not allowed: {why}", option.name()))
        }
        _ if LABELS.contains(&option.name()) => Err(format!(
            "\"{}\" is not allowed: {LABELS_ARE_SET}",
            option.name()
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Allowed, LABELS, check, check_default};
    use crate::options::option::MountOption;
    use crate::options::table::{self, Class, Kind};

    fn passes(option: &str, allowed: &[&str]) -> bool {
        let option = MountOption::parse("otherOpts", option).unwrap();
        let allowed: Vec<_> = allowed.iter().map(|a| Allowed::parse(a).unwrap()).collect();
        check("otherOpts", &option, &allowed).is_ok()
    }

    #[test]
    fn every_row_of_the_table_has_its_verdict() {
        for &(name, class, kind) in table::OPTIONS {
            let option = if kind == Kind::Flag {
                MountOption::flag(name)
            } else {
                MountOption::with_value(name, "1")
            };
            let verdict = check("otherOpts", &option, &[]);
            match class {
                Class::Tuning | Class::Identity => assert_eq!(verdict, Ok(()), "{name}"),
                Class::Sensitive | Class::DriverOwned(_) => assert!(verdict.is_err(), "{name}"),
            }
            let all = Allowed::parse(name);
            let may_be = class == Class::Sensitive && !LABELS.contains(&name);
            assert_eq!(all.is_ok(), may_be, "{name}");
            let is_default = check_default(&option).is_ok();
            let is_owned = matches!(class, Class::DriverOwned(_)) || LABELS.contains(&name);
            assert_eq!(is_default, !is_owned, "{name}");
            if let Ok(all) = all {
                assert_eq!(check("otherOpts", &option, &[all]), Ok(()), "{name}");
            }
        }
    }

    #[test]
    fn an_entry_pins_a_value_or_a_directory() {
        for (option, allowed, verdict) in [
            ("use_cache=/var/cache/oss/a", "use_cache", true),
            (
                "use_cache=/var/cache/oss/a",
                "use_cache=/var/cache/oss/",
                true,
            ),
            (
                "use_cache=/var/cache/oss/a/b/",
                "use_cache=/var/cache/oss/",
                true,
            ),
            (
                "use_cache=/var/cache/oss/",
                "use_cache=/var/cache/oss/",
                false,
            ),
            (
                "use_cache=/var/cache/oss",
                "use_cache=/var/cache/oss/",
                false,
            ),
            (
                "use_cache=/var/cache/ossx/a",
                "use_cache=/var/cache/oss/",
                false,
            ),
            (
                "use_cache=/var/cache/oss/../../etc",
                "use_cache=/var/cache/oss/",
                false,
            ),
            (
                "use_cache=/var/cache/oss//a",
                "use_cache=/var/cache/oss/",
                false,
            ),
            ("use_cache=a", "use_cache=/var/cache/oss/", false),
            ("use_cache=/", "tmpdir", false),
            ("ssl_verify_hostname=0", "ssl_verify_hostname=0", true),
            ("ssl_verify_hostname=1", "ssl_verify_hostname=0", false),
            ("curldbg", "curldbg", true),
            ("curldbg", "curldbg=normal", false),
        ] {
            assert_eq!(
                passes(option, &[allowed]),
                verdict,
                "{option} under {allowed}"
            );
        }
    }

    #[test]
    fn entries_that_mean_nothing_are_errors() {
        for text in [
            "",
            "uid",
            "url",
            "nonsense",
            "use_cache=/",
            "use_cache=/a/../b/",
            "use_cache=/a//",
            "suid=1",
        ] {
            assert!(Allowed::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn refusals_name_the_field_to_use_instead() {
        let option = MountOption::with_value("url", "http://evil");
        assert_eq!(
            check("otherOpts", &option, &[]).unwrap_err().to_string(),
            "option \"otherOpts\": \"url\" is not allowed: set the option url"
        );
    }
}
