//! Circles among imports.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

/// `from` names something of `to`, first in `line`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Import<'a> {
    pub(crate) from: &'a Path,
    pub(crate) to: &'a Path,
    pub(crate) line: usize,
}

/// For each file that is in a circle, and in none found before, the shortest circle through it, as the
/// imports that make it.
pub(crate) fn find<'a>(imports: &[Import<'a>]) -> Vec<Vec<Import<'a>>> {
    let mut found: Vec<Vec<Import<'a>>> = Vec::new();
    let files: BTreeSet<&Path> = imports.iter().map(|import| import.from).collect();
    for file in files {
        let known = found.iter().flatten().any(|import| import.from == file);
        if !known && let Some(circle) = through(file, imports) {
            found.push(circle);
        }
    }
    found
}

fn through<'a>(file: &Path, imports: &[Import<'a>]) -> Option<Vec<Import<'a>>> {
    // The import by which each file was first reached.
    let mut reached: BTreeMap<&Path, Import<'a>> = BTreeMap::new();
    let mut left = VecDeque::from([file]);
    while let Some(at) = left.pop_front() {
        for import in imports.iter().filter(|import| import.from == at) {
            if reached.contains_key(import.to) {
                continue;
            }
            reached.insert(import.to, *import);
            left.push_back(import.to);
        }
    }
    let mut circle = vec![*reached.get(file)?];
    while let Some(first) = circle.first().filter(|first| first.from != file) {
        circle.insert(0, *reached.get(first.from)?);
    }
    Some(circle)
}

#[cfg(test)]
mod tests {
    use super::{Import, find};
    use std::path::Path;

    fn circles(imports: &[(&str, &str)]) -> Vec<String> {
        let import = |&(from, to)| Import {
            from: Path::new(from),
            to: Path::new(to),
            line: 1,
        };
        let imports: Vec<Import<'_>> = imports.iter().map(import).collect();
        let show = |circle: &Vec<Import<'_>>| {
            circle
                .iter()
                .map(|import| format!("{}>", import.from.display()))
                .collect()
        };
        find(&imports).iter().map(show).collect()
    }

    #[test]
    fn finds_each_circle_once() {
        for (case, imports, expected) in [
            ("none", &[("a", "b"), ("a", "c"), ("b", "c")][..], &[][..]),
            ("two files", &[("a", "b"), ("b", "a")], &["a>b>"]),
            ("three", &[("a", "b"), ("b", "c"), ("c", "a")], &["a>b>c>"]),
            (
                "the shortest",
                &[("a", "b"), ("b", "c"), ("c", "a"), ("b", "a")],
                &["a>b>", "c>a>b>"],
            ),
            (
                "two circles",
                &[("a", "b"), ("b", "a"), ("c", "d"), ("d", "c")],
                &["a>b>", "c>d>"],
            ),
            (
                "not those who only reach it",
                &[("z", "a"), ("a", "b"), ("b", "a")],
                &["a>b>"],
            ),
        ] {
            assert_eq!(circles(imports), expected, "{case}");
        }
    }
}
