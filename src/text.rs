//! Checks and small changes of text that does not come from this program: paths, control characters,
//! values that a message repeats.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The longest part of a value that a message repeats, in characters.
const MAX_QUOTED: usize = 64;

/// The longest line of a log, in bytes: the name of an object, or a mount of somebody else's on this
/// node, may be in it.
const MAX_LINE: usize = 4096;
/// The longest list in a message, in bytes.
const MAX_LIST: usize = 1024;

/// `text` as one line of a log: without control characters, and of bounded length.
pub fn log_line(text: &str) -> String {
    strip_control(&cut(text, MAX_LINE))
}

/// `text`, or its beginning of about `bytes` bytes and an ellipsis.
pub(crate) fn cut(text: &str, bytes: usize) -> Cow<'_, str> {
    match text.len() > bytes {
        true => format!("{}…", &text[..text.floor_char_boundary(bytes)]).into(),
        false => text.into(),
    }
}

/// `items` with `separator` between them: as many as a message can bear, at least the beginning of one,
/// and then how many more there are.
pub fn list<T: AsRef<str>>(items: &[T], separator: &str) -> String {
    let mut text = String::new();
    for (n, item) in items.iter().enumerate() {
        let item = cut(item.as_ref(), MAX_LIST);
        if n > 0 && text.len() + separator.len() + item.len() > MAX_LIST {
            // Writing to a String cannot fail.
            let _ = write!(text, "{separator}and {} more", items.len() - n);
            break;
        }
        if n > 0 {
            text.push_str(separator);
        }
        text.push_str(&item);
    }
    text
}

/// `count` with its noun, which has an `s` unless there is one of it: "1 volume", "2 volumes".
pub fn counted(count: usize, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

/// `text` with every control character, line ends among them, replaced by a space: one line for a
/// log or a terminal.
pub fn strip_control(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// `value` in quotes, escaped and cut to a length that a message can bear.
pub(crate) fn quote(value: &str) -> String {
    match value.char_indices().nth(MAX_QUOTED) {
        Some((end, _)) => format!("{:?}…", &value[..end]),
        None => format!("{value:?}"),
    }
}

/// `bytes` in lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Whether `path` is absolute and has no empty, `.` or `..` part (one slash may end it).
pub(crate) fn is_normal_path(path: &str) -> bool {
    path == "/"
        || path.strip_prefix('/').is_some_and(|relative| {
            let parts = relative.strip_suffix('/').unwrap_or(relative);
            !parts.split('/').any(|part| matches!(part, "" | "." | ".."))
        })
}

/// Whether `text` has the form of a host's name (RFC 1123, section 2.1), which that of an IPv4 address
/// is, too.
pub(crate) fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// Whether the resolver would take `host` for an address: in decimal, octal or hexadecimal, whole or
/// in parts (inet_aton(3)).
pub(crate) fn is_numeric_host(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or(host);
    last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x") || last.starts_with("0X")
}

/// Whether `c` may go to ossfs: libfuse splits at commas and decodes backslashes, and a shell that
/// somebody puts in between would interpret quotes.
pub(crate) fn is_plain(c: char) -> bool {
    !c.is_control()
        && !c.is_whitespace()
        && !matches!(c, '\\' | ',' | '"' | '\'' | '`')
        && !is_format(c)
}

/// Invisible characters that change how a line is shown (bidirectional marks, joiners).
fn is_format(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{180e}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        | '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::{
        MAX_LINE, MAX_LIST, counted, is_normal_path, list, log_line, quote, strip_control,
    };

    #[test]
    fn control_characters_become_spaces() {
        assert_eq!(strip_control("a\nb\u{1b}[0m\t\u{85}c"), "a b [0m  c");
    }

    #[test]
    fn one_is_singular() {
        for (count, expected) in [(0, "0 volumes"), (1, "1 volume"), (2, "2 volumes")] {
            assert_eq!(counted(count, "volume"), expected);
        }
    }

    #[test]
    fn a_line_of_a_log_has_a_bound() {
        assert_eq!(log_line("a\nb"), "a b");
        let line = log_line(&"é".repeat(100_000));
        assert!(line.len() <= MAX_LINE + 3 && line.ends_with("é…"));
    }

    #[test]
    fn a_list_has_a_bound_and_counts_what_it_leaves_out() {
        assert_eq!(list::<&str>(&[], ", "), "");
        assert_eq!(list(&["a", "b"], ", "), "a, b");
        let many: Vec<String> = (0..10_000).map(|n| format!("pod-{n:05}")).collect();
        let text = list(&many, "; ");
        assert!(text.starts_with("pod-00000; pod-00001; "), "{text}");
        assert!(text.ends_with("; and 9907 more"), "{text}");
        assert!(text.len() < MAX_LIST + 32);
        let text = list(&["x".repeat(1_000_000), "y".to_owned()], ", ");
        assert!(text.ends_with("x…, and 1 more") && text.len() < MAX_LIST + 32);
    }

    #[test]
    fn a_long_value_is_cut() {
        assert_eq!(quote("a\"b"), r#""a\"b""#);
        assert_eq!(quote(&"é".repeat(65)), format!("\"{}\"…", "é".repeat(64)));
    }

    #[test]
    fn normal_paths() {
        for (path, expected) in [
            ("/", true),
            ("/a", true),
            ("/a/b/", true),
            ("", false),
            ("a", false),
            ("//", false),
            ("/a//b", false),
            ("/a/./b", false),
            ("/a/..", false),
        ] {
            assert_eq!(is_normal_path(path), expected, "{path}");
        }
    }
}
