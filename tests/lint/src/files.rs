//! The files of a crate, and which names something of which other.

use crate::circle::Import;
use crate::source::{self, Named, Source};
use anyhow::{Context as _, Result, bail};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A module's path below the crate's root; the root's is empty.
type Module = Vec<String>;

pub(crate) struct Crate {
    files: BTreeMap<Module, (PathBuf, Source)>,
}

impl Crate {
    /// The crate with the file `root`: that file, and those of all modules that it declares.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        let directory = root.parent().unwrap_or(Path::new(""));
        let mut left = vec![(Module::new(), root.to_owned())];
        while let Some((module, path)) = left.pop() {
            let text = std::fs::read_to_string(&path);
            let text = text.with_context(|| format!("read {}", path.display()))?;
            let source = source::parse(&text).with_context(|| path.display().to_string())?;
            for child in &source.modules {
                let child = [&module[..], child].concat();
                let stem = directory.join(child.join("/"));
                let path = [stem.with_extension("rs"), stem.join("mod.rs")];
                let Some(path) = path.into_iter().find(|path| path.is_file()) else {
                    bail!(
                        "{}: no file of the module {:?}",
                        root.display(),
                        child.join("::")
                    );
                };
                left.push((child, path));
            }
            files.insert(module, (path, source));
        }
        Ok(Self { files })
    }

    pub(crate) fn files(&self) -> usize {
        self.files.len()
    }

    /// Each import of one file from another, once.
    pub(crate) fn imports(&self) -> Vec<Import<'_>> {
        let mut imports = BTreeMap::new();
        for (module, (from, source)) in &self.files {
            for named in &source.paths {
                let Some(to) = self.file_of(module, named).filter(|to| to != from) else {
                    continue;
                };
                let line = named.line;
                imports
                    .entry((from, to))
                    .or_insert(Import { from, to, line });
            }
        }
        imports.into_values().collect()
    }

    /// The file that `named` in `module` leads to; nothing for another crate's.
    fn file_of(&self, module: &Module, named: &Named) -> Option<&Path> {
        let mut at = [&module[..], &named.within].concat();
        let mut segments = named.segments.iter().map(String::as_str).peekable();
        match segments.peek().copied()? {
            "crate" => {
                segments.next();
                at.clear();
            }
            "self" => {
                segments.next();
            }
            "super" => {
                while segments.next_if_eq(&"super").is_some() {
                    at.pop()?;
                }
            }
            first => {
                let child = [&at[..], &[first.to_owned()]].concat();
                self.files.get(&child)?;
            }
        }
        for segment in segments {
            at.push(segment.to_owned());
            if !self.files.contains_key(&at) {
                at.pop();
                break;
            }
        }
        // An inline module is in the file of the one around it.
        loop {
            if let Some((path, _)) = self.files.get(&at) {
                return Some(path);
            }
            at.pop()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Crate;
    use crate::source;
    use std::path::PathBuf;

    fn imports(files: &[(&str, &str)]) -> Vec<String> {
        let file = |(module, text): &(&str, &str)| {
            let path = module
                .split("::")
                .filter(|m| !m.is_empty())
                .map(str::to_owned);
            (
                path.collect(),
                (PathBuf::from(module), source::parse(text).unwrap()),
            )
        };
        let parsed = Crate {
            files: files.iter().map(file).collect(),
        };
        let show = |import: &crate::circle::Import<'_>| {
            format!("{} > {}", import.from.display(), import.to.display())
        };
        parsed.imports().iter().map(show).collect()
    }

    #[test]
    fn a_path_leads_to_the_file_of_its_longest_module() {
        for (case, text, expected) in [
            ("from the root", "use crate::b::c::D;", &["a > b::c"][..]),
            ("an item of a module", "use crate::b::D;", &["a > b"]),
            ("the parent", "use super::D;", &["a > "]),
            ("a sibling", "use super::b::D;", &["a > b"]),
            (
                "twice",
                "use super::b::D; fn f() { crate::b::g(); }",
                &["a > b"],
            ),
            ("a child", "fn f() { e::g(); }", &["a > a::e"]),
            ("another crate", "use b::D;", &[]),
            ("itself", "use self::D; use crate::a::D;", &[]),
            (
                "an inline module's parent",
                "mod m { use super::D; use super::super::b::D; }",
                &["a > b"],
            ),
        ] {
            let files = [("", ""), ("a", text), ("a::e", ""), ("b", ""), ("b::c", "")];
            assert_eq!(imports(&files), expected, "{case}");
        }
    }
}
