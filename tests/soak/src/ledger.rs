//! What was written and what must therefore be in the store.
//!
//! What is promised: s3fs uploads a file at fsync(2) and at close(2). When the last of them has
//! returned without an error, the file is in the store, whatever happens to the daemon, the driver
//! or the store afterwards. An empty file is the exception: s3fs uploads it at some time behind
//! close(2), and so it is never taken for acknowledged. When fsync(2) or close(2) has returned an error, or the daemon died before, the file is
//! as it was before or holds the first part of what was being written, none or all of it included.
//! The same holds for unlink(2).

use fastrand::Rng;
use std::collections::BTreeMap;

/// A file's content: so many bytes that follow from a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) seed: u64,
    pub(crate) bytes: usize,
}

impl Content {
    pub(crate) fn make(self) -> Vec<u8> {
        let mut bytes = vec![0; self.bytes];
        Rng::with_seed(self.seed).fill(&mut bytes);
        bytes
    }
}

/// What one object may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Exactly this; nothing means that there is no such object.
    Is(Option<Content>),
    /// What it was before, or the beginning of what was written when it went wrong.
    Unknown {
        before: Option<Content>,
        after: Option<Content>,
    },
}

/// All objects that were ever written, by key.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    objects: BTreeMap<String, State>,
    /// How often each file has got another key, because what it is was not known any more: a
    /// request of a daemon that was killed may come to the store late.
    versions: BTreeMap<String, u32>,
}

impl Ledger {
    /// The key at which the file `name` is written now.
    pub(crate) fn key(&self, name: &str) -> String {
        match self.versions.get(name) {
            None => name.to_owned(),
            Some(version) => format!("{name}.{version}"),
        }
    }

    /// Notes that `after` is about to be written to the file `name`, or that it is about to be
    /// removed. Until `acknowledge` says otherwise that may go wrong.
    pub(crate) fn begin(&mut self, name: &str, after: Option<Content>) {
        let key = self.key(name);
        let before = match self.objects.get(&key) {
            Some(State::Is(content)) => *content,
            _ => None,
        };
        self.objects.insert(key, State::Unknown { before, after });
        *self.versions.entry(name.to_owned()).or_default() += 1;
    }

    /// Notes that what `begin` announced for the file `name`, at `key`, was acknowledged.
    pub(crate) fn acknowledge(&mut self, name: &str, key: &str) {
        if let Some(state) = self.objects.get_mut(key)
            && let State::Unknown { after, .. } = *state
        {
            *state = State::Is(after);
        }
        match self.versions.get_mut(name) {
            Some(1) => {
                self.versions.remove(name);
            }
            Some(version) => *version -= 1,
            None => {}
        }
    }

    /// The keys with a content that is known.
    pub(crate) fn known(&self) -> impl Iterator<Item = (&str, Option<Content>)> {
        self.objects.iter().filter_map(|(key, state)| match state {
            State::Is(content) => Some((key.as_str(), *content)),
            State::Unknown { .. } => None,
        })
    }

    /// What is wrong with `found` at `key`: nothing, if it is what it may be.
    pub(crate) fn check(&self, key: &str, found: Option<&[u8]>) -> Result<(), String> {
        let is = |content: Option<Content>| content.map(Content::make).as_deref() == found;
        let right = match self.objects.get(key) {
            None => found.is_none(),
            Some(State::Is(content)) => is(*content),
            Some(State::Unknown { before, after }) => {
                is(*before)
                    || match (found, after) {
                        (None, after) => after.is_none(),
                        (Some(found), Some(after)) => after.make().starts_with(found),
                        // Being removed.
                        (Some(_), None) => false,
                    }
            }
        };
        if right {
            return Ok(());
        }
        let found = found.map_or("missing".to_owned(), |found| {
            let whole = self.objects.get(key).and_then(|state| match state {
                State::Is(content) => content.map(Content::make),
                State::Unknown { after, .. } => after.map(Content::make),
            });
            let same = whole.map_or(0, |whole| {
                whole.iter().zip(found).take_while(|(a, b)| a == b).count()
            });
            format!("{} bytes, the first {same} as written", found.len())
        });
        Err(match self.objects.get(key) {
            Some(state) => format!("{key}: {state:?} is expected, found: {found}"),
            None => format!("{key}: nobody wrote it, found: {found}"),
        })
    }

    /// Every key that was ever written.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.objects.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::{Content, Ledger};

    fn content(seed: u64) -> Content {
        Content { seed, bytes: 100 }
    }

    #[test]
    fn a_byte_that_is_lost_or_changed_after_close_is_found() {
        let mut ledger = Ledger::default();
        ledger.begin("f", Some(content(1)));
        ledger.acknowledge("f", "f");
        let written = content(1).make();
        ledger.check("f", Some(&written)).unwrap();
        let said = ledger.check("f", Some(&written[..99])).unwrap_err();
        assert!(said.contains("the first 99 as written"), "{said}");
        let mut changed = written.clone();
        changed[50] ^= 1;
        assert!(ledger.check("f", Some(&changed)).is_err());
        assert!(ledger.check("f", Some(&content(2).make())).is_err());
        assert!(ledger.check("f", None).unwrap_err().contains("missing"));
        assert!(
            ledger
                .check("g", Some(b"x"))
                .unwrap_err()
                .contains("nobody")
        );
    }

    #[test]
    fn what_was_not_acknowledged_is_as_before_or_a_beginning() {
        let mut ledger = Ledger::default();
        ledger.begin("f", Some(content(1)));
        ledger.acknowledge("f", "f");
        ledger.begin("f", Some(content(2)));
        for found in [&content(1).make()[..], &content(2).make()[..40], b""] {
            ledger.check("f", Some(found)).unwrap();
        }
        assert!(ledger.check("f", None).is_err());
        assert!(ledger.check("f", Some(&content(1).make()[..40])).is_err());
        assert_eq!(ledger.key("f"), "f.1", "the next one goes elsewhere");
        ledger.begin("f", Some(content(3)));
        ledger.acknowledge("f", "f.1");
        ledger.check("f.1", Some(&content(3).make())).unwrap();
        assert_eq!(ledger.key("f"), "f.1");
    }

    #[test]
    fn what_was_removed_stays_away() {
        let mut ledger = Ledger::default();
        ledger.begin("f", Some(content(1)));
        ledger.acknowledge("f", "f");
        ledger.begin("f", None);
        ledger.check("f", None).unwrap();
        ledger.check("f", Some(&content(1).make())).unwrap();
        assert!(ledger.check("f", Some(b"")).is_err());
        ledger.acknowledge("f", "f");
        ledger.check("f", None).unwrap();
        assert!(ledger.check("f", Some(&content(1).make())).is_err());
    }
}
