//! The pages of a listing: prefix, delimiter, and where the next one begins.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::objects::Object;

/// The most entries a page has, whatever the client asks for.
const PAGE: i32 = 1000;

/// What a listing asks for.
pub(crate) struct Query<'a> {
    pub(crate) prefix: &'a str,
    pub(crate) delimiter: &'a str,
    /// Entries up to and including this one are on earlier pages.
    pub(crate) after: &'a str,
    pub(crate) max: usize,
}

#[derive(Default)]
pub(crate) struct Page<'a> {
    pub(crate) objects: Vec<(&'a str, &'a Object)>,
    pub(crate) prefixes: Vec<String>,
    /// The last entry of this page, if more follow.
    pub(crate) next: Option<String>,
}

/// The entries a page may have, from what the client asked for; `None` is no number for it.
pub(crate) fn page_size(asked: Option<i32>) -> Option<usize> {
    usize::try_from(asked.unwrap_or(PAGE).min(PAGE)).ok()
}

/// One page. Keys that share a prefix up to the delimiter are skipped as a whole, so that listing
/// a directory does not cost a walk over everything below it.
pub(crate) fn page<'a>(objects: &'a BTreeMap<String, Object>, query: &Query<'_>) -> Page<'a> {
    let mut page = Page::default();
    let mut last = String::new();
    let mut entries = 0;
    let mut from = if query.after >= query.prefix && !query.after.is_empty() {
        Bound::Excluded(query.after.to_owned())
    } else {
        Bound::Included(query.prefix.to_owned())
    };
    while let Some((key, object)) = objects.range((from, Bound::Unbounded)).next() {
        let Some(rest) = key.strip_prefix(query.prefix) else {
            break;
        };
        let group = match query.delimiter {
            "" => None,
            delimiter => rest
                .find(delimiter)
                .map(|at| &key[..query.prefix.len() + at + delimiter.len()]),
        };
        if group != Some(query.after) {
            if entries == query.max {
                // A page of no entries has no last one to continue after.
                page.next = (query.max > 0).then_some(last);
                break;
            }
            entries += 1;
            match group {
                Some(group) => page.prefixes.push(group.to_owned()),
                None => page.objects.push((key, object)),
            }
            last = group.unwrap_or(key).to_owned();
        }
        from = match group {
            Some(group) => match beyond(group) {
                Some(key) => Bound::Included(key),
                None => break,
            },
            None => Bound::Excluded(key.clone()),
        };
    }
    page
}

/// The first string in order that is behind everything starting with `prefix`.
fn beyond(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        // The range of characters steps over the gap of the surrogates.
        if let Some(next) = (last..=char::MAX).nth(1) {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::Headers;

    fn bucket(keys: &[&str]) -> BTreeMap<String, Object> {
        let object = Object::whole(bytes::Bytes::new(), [0; 16], Headers::default());
        keys.iter()
            .map(|key| (key.to_string(), object.clone()))
            .collect()
    }

    /// All pages of a listing, an entry per word, pages separated by bars.
    fn pages(keys: &[&str], prefix: &str, delimiter: &str, max: usize) -> String {
        let objects = bucket(keys);
        let mut after = String::new();
        let mut pages = Vec::new();
        loop {
            let query = Query {
                prefix,
                delimiter,
                after: &after,
                max,
            };
            let page = page(&objects, &query);
            let mut words: Vec<String> = page
                .objects
                .iter()
                .map(|(key, _)| key.to_string())
                .collect();
            words.extend(page.prefixes);
            words.sort();
            pages.push(words.join(" "));
            match page.next {
                Some(next) => after = next,
                None => return pages.join(" | "),
            }
        }
    }

    const KEYS: &[&str] = &["a", "d/", "d/1", "d/2", "d/e/3", "d0", "\u{10ffff}/x"];

    #[test]
    fn groups_by_delimiter_and_splits_into_pages() {
        assert_eq!(pages(KEYS, "", "/", 10), "a d/ d0 \u{10ffff}/");
        assert_eq!(pages(KEYS, "", "/", 1), "a | d/ | d0 | \u{10ffff}/");
        assert_eq!(pages(KEYS, "d/", "/", 2), "d/ d/1 | d/2 d/e/");
        assert_eq!(pages(KEYS, "d", "", 10), "d/ d/1 d/2 d/e/3 d0");
        assert_eq!(
            pages(KEYS, "", "", 3),
            "a d/ d/1 | d/2 d/e/3 d0 | \u{10ffff}/x"
        );
        assert_eq!(pages(KEYS, "x", "/", 3), "");
        assert_eq!(pages(KEYS, "", "/", 0), "");
    }

    #[test]
    fn nothing_is_behind_the_last_character() {
        assert_eq!(beyond("d/").as_deref(), Some("d0"));
        assert_eq!(beyond("d\u{10ffff}").as_deref(), Some("e"));
        assert_eq!(beyond("\u{10ffff}"), None);
    }
}
