//! One option of ossfs, from text to type and back: what `otherOpts` of a volume and
//! `defaultOptions` of the node are made of. It tells what an option *is*; `policy` decides
//! whether it may pass.

use super::refusal::Refusal;
use super::table::{self, Class, Kind};
use crate::descriptor::OSSFS;
use crate::text::is_plain;
use crate::text::{is_normal_path, quote};

/// The longest `otherOpts`, in bytes.
const MAX_TEXT: usize = 8 * 1024;
/// The most options in one `otherOpts`.
const MAX_OPTIONS: usize = 128;
/// The longest value of one option, in bytes.
const MAX_VALUE: usize = 1024;

/// One single option with a value of its type, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountOption {
    name: &'static str,
    value: Option<String>,
}

impl MountOption {
    /// The option `name` without a value.
    pub(crate) fn flag(name: &'static str) -> Self {
        Self { name, value: None }
    }

    /// The option `name=value`, whose value is known to fit.
    pub(crate) fn with_value(name: &'static str, value: impl Into<String>) -> Self {
        Self {
            name,
            value: Some(value.into()),
        }
    }

    /// The option of `text`, `name` or `name=value`, as it follows `-o` (or by itself: `-s`).
    /// `field` is the option of the volume, or the key of the configuration, that contains it.
    pub(crate) fn parse(field: &str, text: &str) -> Result<Self, Refusal> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        let Some((known, class, kind)) = OSSFS.option(name) else {
            return Err(unknown(field, name));
        };
        // A driver-owned option is refused by its name, whatever its value.
        if !matches!(class, Class::DriverOwned(_)) {
            check(kind, value).map_err(|expected| match class {
                Class::Tuning | Class::Identity => {
                    Refusal::of_value(field, text, &format!("is not valid: {known} {expected}"))
                }
                // Values of the others may be secrets.
                _ => Refusal::new(
                    field,
                    format!("the value of {known} is not valid: it {expected}"),
                ),
            })?;
        }
        Ok(Self {
            name: known,
            value: value.map(str::to_owned),
        })
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn value(&self) -> Option<&str> {
        self.value.as_deref()
    }

    /// `name` or `name=value`, as ossfs takes it.
    pub(crate) fn render(&self) -> String {
        match &self.value {
            Some(value) => format!("{}={value}", self.name),
            None => self.name.to_owned(),
        }
    }

    /// The option's arguments: `-o` and itself, or only itself if it is a switch (`-s`).
    pub(crate) fn arguments(&self) -> Vec<String> {
        if self.name.starts_with('-') {
            vec![self.render()]
        } else {
            vec!["-o".to_owned(), self.render()]
        }
    }
}

/// The single options of a text like `-o a -o b=c,d -s`, in order, with those that ossfs 1.91
/// dropped since 1.80 translated or left out; what was left out goes to `notices`.
pub(crate) fn split(
    field: &str,
    text: &str,
    notices: &mut Vec<String>,
) -> Result<Vec<MountOption>, Refusal> {
    if text.len() > MAX_TEXT {
        return Err(Refusal::new(
            field,
            format!("has {} bytes, at most {MAX_TEXT} are allowed", text.len()),
        ));
    }
    if let Some(c) = text.chars().find(|&c| c.is_control()) {
        return Err(Refusal::new(
            field,
            format!(
                "the character {c:?} is not allowed: write the options in one line, separated by spaces"
            ),
        ));
    }
    let mut options = Vec::new();
    let mut args = text.split(' ').filter(|arg| !arg.is_empty());
    while let Some(arg) = args.next() {
        let list = match arg.strip_prefix("-o") {
            Some("") => args.next().ok_or_else(|| {
                Refusal::new(field, "ends in \"-o\": an option is expected after it")
            })?,
            Some(list) => list,
            None if arg.starts_with('-') => {
                options.push(MountOption::parse(field, arg)?);
                continue;
            }
            None => {
                return Err(Refusal::new(
                    field,
                    format!(
                        "{} has no \"-o\" before it: \"-o name=value\" is expected",
                        known_name_of(arg)
                    ),
                ));
            }
        };
        for single in list.split(',') {
            if single.starts_with('-') {
                return Err(Refusal::new(
                    field,
                    format!("{} begins with \"-\" after \"-o\"", known_name_of(single)),
                ));
            }
            options.extend(modernised(field, single, notices)?);
        }
        if options.len() > MAX_OPTIONS {
            return Err(Refusal::new(
                field,
                format!("has more than {MAX_OPTIONS} options"),
            ));
        }
    }
    Ok(options)
}

/// The name of the option in `text` for a message; no other text is shown, it may be a secret.
fn known_name_of(text: &str) -> String {
    let name = text.split('=').next().unwrap_or(text);
    match OSSFS.option(name) {
        Some((known, ..)) => quote(known),
        None => "an argument that is not an option".to_owned(),
    }
}

/// The option of `text`, or what replaces it in ossfs 1.91 if only 1.80 had it.
fn modernised(
    field: &str,
    text: &str,
    notices: &mut Vec<String>,
) -> Result<Option<MountOption>, Refusal> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    match name {
        "default_permission" => {
            let mode = u32::from_str_radix(value, 8)
                .ok()
                .filter(|_| check(Kind::Octal, Some(value)).is_ok())
                .ok_or_else(|| {
                    Refusal::of_value(field, text, "is not valid: an octal mode is expected")
                })?;
            let umask = format!("{:04o}", 0o777 & !mode);
            notices.push(format!(
                "default_permission={value} is umask={umask} in ossfs 1.91"
            ));
            Ok(Some(MountOption::with_value("umask", umask)))
        }
        "noxattr" | "enable_noobj_cache" | "use_rrs" | "sigv2" => {
            notices.push(format!("{name} is left out: ossfs 1.91 does not have it"));
            Ok(None)
        }
        _ => MountOption::parse(field, text).map(Some),
    }
}

/// Whether `value` is one of `kind`; if not, what is expected, going on after the option's name.
fn check(kind: Kind, value: Option<&str>) -> Result<(), String> {
    let Some(value) = value else {
        return match kind {
            Kind::Flag
            | Kind::Encryption
            | Kind::OptionalName
            | Kind::OptionalSwitch
            | Kind::OptionalText => Ok(()),
            _ => Err("needs a value".to_owned()),
        };
    };
    if kind == Kind::Flag {
        return Err("takes no value".to_owned());
    }
    if value.len() > MAX_VALUE {
        return Err(format!("takes at most {MAX_VALUE} bytes"));
    }
    if !value.chars().all(|c| c.is_ascii() && is_plain(c)) || value.is_empty() {
        return Err(
            "takes printable ASCII without blanks, commas, quotes and backslashes".to_owned(),
        );
    }
    let expect = |fits: bool, what: &str| {
        if fits {
            Ok(())
        } else {
            Err(format!("takes {what}"))
        }
    };
    if kind != Kind::DirtyData && value.starts_with('-') {
        return Err("takes no value that begins with \"-\"".to_owned());
    }
    match kind {
        Kind::Number(min, max) => expect(
            number(value).is_some_and(|n| (min..=max).contains(&n)),
            &match max {
                table::LARGE => format!("a whole number from {min} on"),
                _ => format!("a whole number from {min} to {max}"),
            },
        ),
        Kind::Octal => expect(
            value.len() <= 4 && value.bytes().all(|b| (b'0'..=b'7').contains(&b)),
            "an octal mask of at most four digits",
        ),
        Kind::Seconds => {
            let (whole, fraction) = value.split_once('.').unwrap_or((value, "0"));
            let fits = number(whole).is_some() && number(fraction).is_some();
            expect(fits, "seconds, like 10 or 0.5")
        }
        Kind::DirtyData => expect(
            value == "-1" || number(value).is_some_and(|n| n >= 50),
            "a whole number of megabytes from 50 on, or -1",
        ),
        Kind::Name | Kind::OptionalName => expect(
            value
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')),
            "letters, digits, \".\", \"_\" and \"-\"",
        ),
        Kind::Path => expect(
            is_normal_path(value),
            "an absolute path without \".\" and \"..\"",
        ),
        Kind::OneOf(values) => expect(
            values.contains(&value),
            &format!("one of {}", values.join(", ")),
        ),
        Kind::Encryption => {
            let (kind, key) = value.split_once(':').unwrap_or((value, "key"));
            let is_id = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
            let fits = matches!(kind, "1" | "kms" | "kmsid" | "k")
                && !key.is_empty()
                && key.bytes().all(is_id)
                && (matches!(kind, "kmsid" | "k") || kind == value);
            expect(fits, "1, kms, kmsid, kmsid:ID, k or k:ID")
        }
        Kind::OptionalSwitch => expect(matches!(value, "0" | "1"), "0 or 1"),
        Kind::Text | Kind::OptionalText => Ok(()),
        Kind::Flag => Err("takes no value".to_owned()),
    }
}

/// A decimal number: digits only, no sign, no space.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

fn unknown(field: &str, name: &str) -> Refusal {
    let nearest = OSSFS
        .usable_options()
        .map(|known| (distance(name, known), known))
        .min()
        .filter(|&(distance, known)| distance <= 3 && distance < known.len());
    let hint = match nearest {
        Some((_, known)) => format!(" (did you mean {known}?)"),
        None => String::new(),
    };
    Refusal::new(
        field,
        format!("{} is not an option of ossfs{hint}", quote(name)),
    )
}

/// The edit distance of two names; names much longer than any option count as far apart.
fn distance(a: &str, b: &str) -> usize {
    if a.len() > 64 {
        return a.len();
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::{MountOption, split};
    use crate::options::table::{self, Class, Kind};

    fn render(text: &str) -> Result<Vec<String>, String> {
        split("otherOpts", text, &mut Vec::new())
            .map(|options| options.iter().map(MountOption::render).collect())
            .map_err(|e| e.to_string())
    }

    #[test]
    fn splits_every_way_of_writing_options() {
        for (text, options) in [
            ("", vec![]),
            ("   ", vec![]),
            (
                "-o max_stat_cache_size=0 -o allow_other",
                vec!["max_stat_cache_size=0", "allow_other"],
            ),
            ("-oallow_other,uid=1000", vec!["allow_other", "uid=1000"]),
            (
                "-o allow_other,umask=022  -s",
                vec!["allow_other", "umask=022", "-s"],
            ),
            ("-omax_dirty_data=-1", vec!["max_dirty_data=-1"]),
            ("-o entry_timeout=0.5", vec!["entry_timeout=0.5"]),
            ("-o use_sse -o use_xattr=1", vec!["use_sse", "use_xattr=1"]),
            (
                "-ouse_sse=kmsid:a-1,use_sse=1",
                vec!["use_sse=kmsid:a-1", "use_sse=1"],
            ),
            ("-o default_permission=755", vec!["umask=0022"]),
            ("-o default_permission=777", vec!["umask=0000"]),
            (
                "-o noxattr,enable_noobj_cache,use_rrs=1,sigv2,noua",
                vec!["noua"],
            ),
        ] {
            assert_eq!(
                render(text).as_deref(),
                Ok(options.as_slice())
                    .map(|o: &[&str]| { o.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>() })
                    .as_deref(),
                "{text}"
            );
        }
    }

    #[test]
    fn says_what_was_dropped_or_translated() {
        let mut notices = Vec::new();
        split(
            "otherOpts",
            "-o noxattr,default_permission=0770",
            &mut notices,
        )
        .unwrap();
        assert_eq!(
            notices,
            [
                "noxattr is left out: ossfs 1.91 does not have it",
                "default_permission=0770 is umask=0007 in ossfs 1.91"
            ]
        );
    }

    #[test]
    fn refuses_what_is_not_an_option_of_its_type() {
        for text in [
            "allow_other",
            "-o",
            "-o a -o",
            "-o -s",
            "-o ,",
            "-o allow_other,",
            "-o ,allow_other",
            "-o allow_other, uid=0",
            "--",
            "-x",
            "--allow_other",
            "-ouid",
            "-ouid=",
            "-ouid=root",
            "-ouid=-1",
            "-ouid=+1",
            "-ouid=0x10",
            "-ouid=4294967295",
            "-ouid=1e3",
            "-oumask=8",
            "-oumask=00022",
            "-oumask=u=rw",
            "-oallow_other=1",
            "-odbglevel=loud",
            "-ouse_xattr=2",
            "-oretries=0",
            "-oretries=11",
            "-oconnect_timeout=601",
            "-oreadwrite_timeout=601",
            "-olist_object_max_keys=10",
            "-omax_dirty_data=49",
            "-omax_dirty_data=-2",
            "-oentry_timeout=1.",
            "-oentry_timeout=.5",
            "-oentry_timeout=nan",
            "-oinstance_name=a/b",
            "-oservicepath=a",
            "-oservicepath=//",
            "-oparallel_count=1025",
            "-omultipart_size=18446744073709551615",
            "-ouse_sse=/etc/shadow",
            "-ouse_sse=c:/etc/shadow",
            "-ouse_sse=1:x",
            "-ouse_sse=kmsid:",
            "-oservicepath=/a/../b",
            "-ouse_sse=a\\b",
            "-ouse_sse='a'",
            "-ouse_sse=\"a\"",
            "-ouse_sse=-x",
            "-ouse_sse=中",
            "-o allow_other\n-o suid",
            "-o\tallow_other",
            "-o allow_other\0",
            "-o ALLOW_OTHER",
            "-oallow\\_other",
            "-ouid==1",
            "-o default_permission=9",
            "-o default_permission",
        ] {
            assert!(
                render(text).is_err(),
                "{text:?} passed as {:?}",
                render(text)
            );
        }
        assert!(render(&format!("-o instance_name={}", "x".repeat(1025))).is_err());
        assert!(render(&"-o noua ".repeat(129)).is_err());
        assert!(render(&"-o noua ".repeat(10_000)).is_err());
        assert!(render(&format!("-o noua{}", ",noua".repeat(129))).is_err());
    }

    #[test]
    fn names_the_nearest_option() {
        assert_eq!(
            render("-o alow_other").unwrap_err(),
            r#"option "otherOpts": "alow_other" is not an option of ossfs (did you mean allow_other?)"#
        );
        assert_eq!(
            render("-o quite_unknown_thing").unwrap_err(),
            r#"option "otherOpts": "quite_unknown_thing" is not an option of ossfs"#
        );
    }

    #[test]
    fn the_table_is_the_one_of_the_survey() {
        let survey = include_str!("../../tests/data/ossfs-options.tsv");
        let rows: Vec<&str> = survey.lines().skip(1).collect();
        assert_eq!(rows.len(), table::OPTIONS.len());
        for (row, (name, class, kind)) in rows.iter().zip(table::OPTIONS) {
            let columns: Vec<&str> = row.split('\t').collect();
            let takes = match kind {
                Kind::Flag => "no",
                Kind::Encryption
                | Kind::OptionalName
                | Kind::OptionalSwitch
                | Kind::OptionalText => "optional",
                _ => "yes",
            };
            let class = match class {
                Class::Tuning => "tuning",
                Class::Identity => "identity",
                Class::Sensitive => "sensitive",
                Class::DriverOwned(_) => "driver-owned",
            };
            assert_eq!(columns[..3], [*name, takes, class]);
        }
    }
}
