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

/// The shortest circle through the first file of each group of files that lead to each other, as the
/// imports that make it.
pub(crate) fn find<'a>(imports: &[Import<'a>]) -> Vec<Vec<Import<'a>>> {
    let mut found: Vec<Vec<Import<'a>>> = Vec::new();
    let files: BTreeSet<&Path> = imports.iter().map(|import| import.from).collect();
    let mut reached = BTreeMap::new();
    for file in files {
        let from = reach(file, imports);
        let is_known = found.iter().any(|circle| {
            let known = circle[0].from;
            let back: &BTreeMap<&Path, Import<'a>> = &reached[known];
            from.contains_key(known) && back.contains_key(file)
        });
        if !is_known && let Some(circle) = through(file, &from) {
            found.push(circle);
        }
        reached.insert(file, from);
    }
    found
}

/// The files that `file` leads to, each with the import by which it is reached first.
fn reach<'a>(file: &Path, imports: &[Import<'a>]) -> BTreeMap<&'a Path, Import<'a>> {
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
    reached
}

/// The way from `file` back to itself, if there is one among what it has `reached`.
fn through<'a>(file: &Path, reached: &BTreeMap<&Path, Import<'a>>) -> Option<Vec<Import<'a>>> {
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
    fn finds_a_circle_of_each_group() {
        for (case, imports, expected) in [
            ("none", &[("a", "b"), ("a", "c"), ("b", "c")][..], &[][..]),
            ("two files", &[("a", "b"), ("b", "a")], &["a>b>"]),
            ("three", &[("a", "b"), ("b", "c"), ("c", "a")], &["a>b>c>"]),
            (
                "the shortest of a group",
                &[("a", "b"), ("b", "c"), ("c", "a"), ("b", "a")],
                &["a>b>"],
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
