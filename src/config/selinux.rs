//! The SELinux label of mounts in the node configuration (`seLinuxContext`).

use serde::{Deserialize as _, Deserializer};

/// The longest label, in bytes.
const MAX_LENGTH: usize = 256;

/// A label, as the kernel gets it in a mount option.
pub(super) fn context<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| parse(&text).map_err(serde::de::Error::custom))
        .transpose()
}

/// `text`, if it is `user:role:type` or `user:role:type:level`.
fn parse(text: &str) -> Result<String, String> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"_.,:-".contains(&b);
    let mut parts = text.splitn(4, ':');
    let named = (0..3).all(|_| parts.next().is_some_and(|part| !part.is_empty()));
    if !named || parts.next() == Some("") || text.len() > MAX_LENGTH || !text.bytes().all(is_plain)
    {
        return Err(format!(
            "{text:?} is not an SELinux label: user:role:type:level is expected, like \
             \"system_u:object_r:container_file_t:s0\""
        ));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_label_has_three_parts_or_four() {
        for text in [
            "system_u:object_r:container_file_t:s0",
            "system_u:object_r:container_file_t:s0:c1,c2",
            "system_u:object_r:container_file_t:s0-s0:c0.c1023",
            "system_u:object_r:fusefs_t",
        ] {
            assert_eq!(parse(text).as_deref(), Ok(text));
        }
        let long = format!("a:b:c:{}", "s".repeat(256));
        for text in [
            "",
            "container_file_t",
            "a:b",
            "a::c",
            "a:b:c:",
            "a:b:c d:s0",
            "a:b:c\",suid:s0",
            "a:b:c=d",
            &long,
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
