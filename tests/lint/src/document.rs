//! A document in Markdown to the files of the repository that it names.

/// A file or directory that is named in a document.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) path: String,
    pub(crate) line: usize,
    /// A link is relative to the document; a name in code may be relative to the repository's root.
    pub(crate) is_link: bool,
}

/// What begins a name in code that is one of a file in the repository.
const DIRECTORIES: [&str; 6] = [
    "src/",
    "installer/",
    "packaging/",
    "tests/",
    ".ci/",
    ".github/",
];

/// The files that `text` links to, and those that it names in code with their directory. Blocks of
/// code, patterns (`*`, `<…>`, `{…}`) and addresses are not looked at.
pub(crate) fn files(text: &str) -> Vec<Named> {
    let mut found = Vec::new();
    let mut in_block = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
            continue;
        }
        if in_block {
            continue;
        }
        let line_number = number + 1;
        // Code is every second part between backticks.
        for (index, part) in line.split('`').enumerate() {
            let path = match index % 2 == 1 {
                true => in_code(part),
                false => None,
            };
            found.extend(path.map(|path| Named {
                path,
                line: line_number,
                is_link: false,
            }));
        }
        found.extend(links(line).map(|path| Named {
            path,
            line: line_number,
            is_link: true,
        }));
    }
    found
}

fn in_code(text: &str) -> Option<String> {
    let is_path = DIRECTORIES
        .iter()
        .any(|directory| text.starts_with(directory));
    let is_pattern = text.contains(|c: char| "*<{…".contains(c) || c.is_whitespace());
    (is_path && !is_pattern).then(|| text.to_owned())
}

/// The targets of `[text](target)`, without what comes after `#`.
fn links(line: &str) -> impl Iterator<Item = String> {
    line.split("](").skip(1).filter_map(|rest| {
        let target = rest.split(')').next()?.split('#').next()?;
        let is_file = !target.is_empty() && !target.contains(':');
        is_file.then(|| target.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::files;

    #[test]
    fn finds_the_files_that_a_document_names() {
        for (case, text, expected) in [
            ("a link", "see [it](a/b.md#part)", &["a/b.md"][..]),
            ("two", "[a](a.md), [b](b.md)", &["a.md", "b.md"]),
            (
                "code",
                "in `src/a.rs` and `tests/b`",
                &["src/a.rs", "tests/b"],
            ),
            ("other code", "`make lint`, `/etc/x`, `src`", &[]),
            ("a pattern", "`src/*.rs`, `src/<a>.rs`, `src/{a,b}.rs`", &[]),
            ("an address", "[it](https://example.com/a.md)", &[]),
            ("a part of itself", "[it](#part)", &[]),
            ("a block", "```\n`src/a.rs`\n```", &[]),
        ] {
            let found: Vec<String> = files(text).into_iter().map(|named| named.path).collect();
            assert_eq!(found, expected, "{case}");
        }
    }
}
