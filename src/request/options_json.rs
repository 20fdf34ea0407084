//! The options JSON of a mount call: a flat object of strings, written by kubelet from the volume's
//! options and keys of its own (`pkg/volume/flexvolume/driver-call.go`, `OptionsForDriver`).

use crate::text::quote;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use std::fmt;
use zeroize::Zeroizing;

/// The longest options JSON, in bytes. Linux passes at most 128 KiB in one argument.
const MAX_JSON: usize = 128 * 1024;
/// The most keys; a Secret may have some of its own.
const MAX_KEYS: usize = 512;

/// The options of one volume. Keys compare without regard to case, as in the Go driver, whose users
/// write `Bucket` and `URL`.
pub(crate) struct OptionsJson {
    entries: Vec<Entry>,
}

struct Entry {
    key: String,
    value: Zeroizing<String>,
}

impl OptionsJson {
    /// The options of `json`. An error is one sentence without any value, for a value may be a key.
    pub(crate) fn parse(json: &str) -> Result<Self, String> {
        if json.len() > MAX_JSON {
            return Err(format!(
                "the options JSON has {} bytes, at most {MAX_JSON} are allowed",
                json.len()
            ));
        }
        let options: Self = serde_json::from_str(json).map_err(|e| {
            let problem = e.to_string();
            // serde's message about a value of the wrong type repeats it, with the keys in it.
            if problem.starts_with("invalid type") {
                "the options JSON is not an object of strings".to_owned()
            } else {
                format!("the options JSON cannot be read: {problem}")
            }
        })?;
        let mut keys: Vec<String> = options
            .entries
            .iter()
            .map(|e| e.key.to_ascii_lowercase())
            .collect();
        keys.sort_unstable();
        match keys.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(format!(
                "option {} is given twice (upper and lower case are the same)",
                quote(&pair[0])
            )),
            None => Ok(options),
        }
    }

    /// The value of `key`, trimmed; nothing where it is missing or blank.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.entries
            .iter()
            .find(|e| e.key.eq_ignore_ascii_case(key))
            .map(|e| e.value.trim())
            .filter(|value| !value.is_empty())
    }

    /// The keys that `known` does not hold for, as they were written.
    pub(crate) fn keys_unless(&self, known: impl Fn(&str) -> bool) -> Vec<&str> {
        self.entries
            .iter()
            .map(|e| e.key.as_str())
            .filter(|key| !known(key))
            .collect()
    }
}

impl<'de> Deserialize<'de> for OptionsJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Entries)
    }
}

struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = OptionsJson;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            if entries.len() == MAX_KEYS {
                return Err(A::Error::custom(format!(
                    "there are more than {MAX_KEYS} keys"
                )));
            }
            // serde's own message would repeat a value of the wrong type, which may be a key.
            let Text(value) = map.next_value().map_err(|_| {
                A::Error::custom(format!("the value of {} must be a string", quote(&key)))
            })?;
            entries.push(Entry { key, value });
        }
        Ok(OptionsJson { entries })
    }
}

/// A JSON string; anything else is refused without looking into it.
struct Text(Zeroizing<String>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AString;
        impl Visitor<'_> for AString {
            type Value = Text;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_str<E>(self, text: &str) -> Result<Text, E> {
                Ok(Text(Zeroizing::new(text.to_owned())))
            }
        }
        deserializer.deserialize_str(AString)
    }
}

#[cfg(test)]
mod tests {
    use super::OptionsJson;

    #[test]
    fn keys_match_without_case_and_values_are_trimmed() {
        let options = OptionsJson::parse(r#"{"Bucket":" docker\n","URL":"x","akid":""}"#).unwrap();
        assert_eq!(options.get("bucket"), Some("docker"));
        assert_eq!(options.get("url"), Some("x"));
        assert_eq!(options.get("akId"), None);
        // The Kelvin sign is a "k" in lower case, but not in ASCII.
        assert_eq!(
            OptionsJson::parse("{\"buc\u{212a}et\":\"a\"}")
                .unwrap()
                .get("bucket"),
            None
        );
        assert_eq!(options.keys_unless(|k| k == "URL"), ["Bucket", "akid"]);
    }

    #[test]
    fn refuses_what_kubelet_never_sends_without_repeating_values() {
        let deep = format!("{{\"a\":{}", "[".repeat(100_000));
        let many = format!(
            "{{{}}}",
            (0..600)
                .map(|n| format!("\"{n}\":\"\""))
                .collect::<Vec<_>>()
                .join(",")
        );
        for (name, json) in [
            ("nothing", ""),
            ("not an object", "[]"),
            ("encoded twice", r#""{\"akSecret\":\"7474\"}""#),
            ("a number alone", "7474"),
            ("a number", r#"{"akSecret":747474}"#),
            ("a bare word", r#"{"akSecret":747474"#),
            ("nested", r#"{"akSecret":{"a":"747474"}}"#),
            ("null", r#"{"bucket":null}"#),
            ("twice", r#"{"bucket":"747474","BUCKET":"747475"}"#),
            (
                "twice to the letter",
                r#"{"bucket":"747474","bucket":"747475"}"#,
            ),
            ("trailing text", r#"{"bucket":"a"} {}"#),
            ("a lone surrogate", r#"{"bucket":"\ud800"}"#),
            ("deep", &deep),
            ("long", &format!("{{\"a\":\"{}\"}}", "x".repeat(1 << 20))),
            ("many keys", &many),
        ] {
            let error = OptionsJson::parse(json)
                .err()
                .unwrap_or_else(|| panic!("{name} passed"));
            assert!(!error.contains("7474"), "{name}: {error}");
            assert!(error.len() < 300, "{name}: {error}");
        }
    }
}
