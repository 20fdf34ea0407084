//! What a volume authenticates with. A key pair never shows itself: no Debug, no Display, wiped when
//! dropped. It leaves the process only as the line of ossfs's passwd file.

use std::fmt;
use zeroize::Zeroizing;

/// The longest key id or secret, in bytes; those of Alibaba Cloud have 16 to 30.
const MAX_LENGTH: usize = 256;

/// The shortest key that is looked for in a message, in bytes.
const MIN_REDACTED: usize = 6;

/// The credentials of a volume, resolved: nothing is left to be read.
pub(crate) enum Credentials {
    Keys(KeyPair),
    /// The name of the node's RAM role.
    RamRole(String),
}

/// An access key id with its secret.
#[derive(Clone)]
pub(crate) struct KeyPair {
    id: Zeroizing<String>,
    secret: Zeroizing<String>,
}

/// Why a text cannot be half of a key pair; it names no character of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct KeyError(&'static str);

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl KeyPair {
    /// The pair of two texts, without white space around them: Secrets often end in a newline. An
    /// error names the half ("akId", "akSecret") that does not fit in a passwd file, whose line is
    /// `bucket:id:secret` without white space.
    pub(crate) fn parse(id: &str, secret: &str) -> Result<Self, (&'static str, KeyError)> {
        Ok(Self {
            id: part(id).map_err(|e| ("akId", e))?,
            secret: part(secret).map_err(|e| ("akSecret", e))?,
        })
    }

    /// The line of ossfs's passwd file that gives this pair to `bucket`, with its newline.
    pub(crate) fn passwd_line(&self, bucket: &str) -> Zeroizing<String> {
        Zeroizing::new(format!("{bucket}:{}:{}\n", *self.id, *self.secret))
    }

    /// The first characters of the key id, enough to distinguish keys in a log.
    pub(crate) fn short_id(&self) -> String {
        let shown = (self.id.chars().count() / 2).min(4);
        self.id.chars().take(shown).chain(['…']).collect()
    }

    /// `text` without the secret and with the key id shortened.
    pub(crate) fn redact(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (half, shown) in [(&self.secret, "***"), (&self.id, self.short_id().as_str())] {
            // A text as short as that is no real key, and may be part of any other text.
            if half.len() >= MIN_REDACTED {
                text = text.replace(half.as_str(), shown);
            }
        }
        text
    }

    /// What distinguishes this pair from any other, to be hashed and never shown.
    pub(crate) fn hash_input(&self) -> [&str; 2] {
        [&self.id, &self.secret]
    }
}

fn part(text: &str) -> Result<Zeroizing<String>, KeyError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(KeyError("is empty"));
    }
    if text.len() > MAX_LENGTH {
        return Err(KeyError("is too long for a key"));
    }
    if text
        .chars()
        .any(|c| c.is_whitespace() || c.is_control() || c == ':')
    {
        return Err(KeyError(
            "contains a space, a control character or a colon, which no key does",
        ));
    }
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::KeyPair;

    #[test]
    fn takes_what_fits_a_passwd_line_and_trims_it() {
        let pair = KeyPair::parse(" LTAI4abc\n", "s3cr+et/=\r\n").ok().unwrap();
        assert_eq!(
            pair.passwd_line("docker").as_str(),
            "docker:LTAI4abc:s3cr+et/=\n"
        );
    }

    #[test]
    fn refuses_what_would_break_the_passwd_line() {
        for (id, secret, half) in [
            ("", "s", "akId"),
            ("a", " \n", "akSecret"),
            ("a:b", "s", "akId"),
            ("a", "s:t", "akSecret"),
            ("a", "s t", "akSecret"),
            ("a\nother:b", "s", "akId"),
            ("a", "s\u{0}", "akSecret"),
            ("a", "s\u{2028}t", "akSecret"),
        ] {
            let (which, _) = KeyPair::parse(id, secret).err().unwrap();
            assert_eq!(which, half, "{id:?} {secret:?}");
        }
        assert!(KeyPair::parse(&"a".repeat(257), "s").is_err());
    }

    #[test]
    fn redacts_both_halves() {
        let pair = KeyPair::parse("LTAI4abcdef", "topsecret").ok().unwrap();
        assert_eq!(
            pair.redact("key LTAI4abcdef with topsecret"),
            "key LTAI… with ***"
        );
        assert_eq!(KeyPair::parse("ab", "x").ok().unwrap().short_id(), "a…");
    }
}
