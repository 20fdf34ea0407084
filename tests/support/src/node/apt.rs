//! The package archive that the apt of the host uses.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A package archive, enough to make a root file system from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Archive {
    pub(crate) uri: String,
    pub(crate) suite: String,
    pub(crate) components: Vec<String>,
    pub(crate) keyring: Option<PathBuf>,
}

/// Finds the archive of the release that the host runs, among the sources of its apt.
pub(crate) fn archive() -> Result<Archive> {
    let suite = codename(&fs::read_to_string("/etc/os-release").context("read /etc/os-release")?)
        .context("no VERSION_CODENAME in /etc/os-release")?;
    let mut archive = source_files()
        .iter()
        .filter_map(|file| Some((file, fs::read_to_string(file).ok()?)))
        .flat_map(|(file, text)| if file.extension().is_some_and(|e| e == "sources") { stanzas(&text) } else { lines(&text) })
        .find(|archive| archive.suite == suite && archive.components.iter().any(|c| c == "main"))
        .with_context(|| format!("no source for the main component of {suite} in /etc/apt/sources.list and sources.list.d"))?;
    if let Some(list) = archive.uri.strip_prefix("mirror+file:") {
        let text =
            fs::read_to_string(list).with_context(|| format!("read the mirror list {list}"))?;
        archive.uri = first_mirror(&text).with_context(|| format!("no http mirror in {list}"))?;
    }
    Ok(archive)
}

fn source_files() -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir("/etc/apt/sources.list.d")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|file| {
            file.extension()
                .is_some_and(|e| e == "list" || e == "sources")
        })
        .collect();
    files.sort();
    files.insert(0, PathBuf::from("/etc/apt/sources.list"));
    files
}

fn codename(os_release: &str) -> Option<String> {
    let value = os_release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    Some(value.trim_matches('"').to_owned())
}

fn first_mirror(list: &str) -> Option<String> {
    list.lines()
        .filter_map(|line| line.split_whitespace().next())
        .find(|uri| uri.starts_with("http"))
        .map(str::to_owned)
}

/// Reads the one-line format: one archive for each `deb` line.
fn lines(text: &str) -> Vec<Archive> {
    text.lines().filter_map(line).collect()
}

fn line(text: &str) -> Option<Archive> {
    let mut rest = text
        .split('#')
        .next()?
        .trim()
        .strip_prefix("deb ")?
        .trim_start();
    let mut keyring = None;
    if let Some((options, after)) = rest
        .strip_prefix('[')
        .and_then(|bracketed| bracketed.split_once(']'))
    {
        keyring = options
            .split_whitespace()
            .find_map(|option| option.strip_prefix("signed-by="))
            .and_then(keyring_file);
        rest = after;
    }
    let mut words = rest.split_whitespace().map(str::to_owned);
    Some(Archive {
        uri: words.next()?,
        suite: words.next()?,
        components: words.collect(),
        keyring,
    })
}

/// Reads the deb822 format: one archive for each suite of each enabled stanza of binary packages.
fn stanzas(text: &str) -> Vec<Archive> {
    let text: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    text.split(|line| line.trim().is_empty())
        .flat_map(stanza)
        .collect()
}

fn stanza(lines: &[&str]) -> Vec<Archive> {
    let field = |name: &str| -> Vec<String> {
        let Some(at) = lines.iter().position(|line| is_field(line, name)) else {
            return Vec::new();
        };
        let first = lines[at].split_once(':').map_or("", |(_, value)| value);
        let more = lines[at + 1..]
            .iter()
            .take_while(|line| line.starts_with([' ', '\t']));
        std::iter::once(&first)
            .chain(more)
            .flat_map(|value| value.split_whitespace())
            .map(str::to_owned)
            .collect()
    };
    if !field("Types").iter().any(|kind| kind == "deb")
        || field("Enabled").iter().any(|value| value == "no")
    {
        return Vec::new();
    }
    let Some(uri) = field("URIs").into_iter().next() else {
        return Vec::new();
    };
    let components = field("Components");
    let keyring = field("Signed-By")
        .first()
        .and_then(|value| keyring_file(value));
    field("Suites")
        .into_iter()
        .map(|suite| Archive {
            uri: uri.clone(),
            suite,
            components: components.clone(),
            keyring: keyring.clone(),
        })
        .collect()
}

fn is_field(line: &str, name: &str) -> bool {
    line.split_once(':')
        .is_some_and(|(key, _)| key.eq_ignore_ascii_case(name))
}

/// `Signed-By` may also hold a fingerprint or a whole key; only a file can be handed on.
fn keyring_file(value: &str) -> Option<PathBuf> {
    value.starts_with('/').then(|| Path::new(value).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(suite: &str, components: &[&str], keyring: Option<&str>) -> Archive {
        Archive {
            uri: "http://mirror.example/debian".to_owned(),
            suite: suite.to_owned(),
            components: components.iter().map(|&c| c.to_owned()).collect(),
            keyring: keyring.map(PathBuf::from),
        }
    }

    #[test]
    fn one_line_format() {
        let text = "# comment\n\
            deb http://mirror.example/debian bookworm main contrib # trailing\n\
            deb-src http://mirror.example/debian bookworm main\n\
            deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian bookworm-updates main\n";
        let expected = [
            archive("bookworm", &["main", "contrib"], None),
            archive("bookworm-updates", &["main"], Some("/k.gpg")),
        ];
        assert_eq!(lines(text), expected);
    }

    #[test]
    fn deb822_format() {
        let text = "Types: deb deb-src\n# comment\nURIs: http://mirror.example/debian\nSuites: noble\n noble-updates\n\
            Components: main universe\nSigned-By: /k.gpg\n\n\
            Enabled: no\nTypes: deb\nURIs: http://mirror.example/off\nSuites: noble\nComponents: main\n\n\
            types: deb\nuris: http://mirror.example/debian\nsuites: other\ncomponents: main\nSigned-By: 0123ABCD\n";
        let universe = ["main", "universe"];
        let expected = [
            archive("noble", &universe, Some("/k.gpg")),
            archive("noble-updates", &universe, Some("/k.gpg")),
            archive("other", &["main"], None),
        ];
        assert_eq!(stanzas(text), expected);
    }

    #[test]
    fn release_and_mirror_list() {
        assert_eq!(
            codename("NAME=x\nVERSION_CODENAME=\"noble\"\n").as_deref(),
            Some("noble")
        );
        let list = "# list\nhttp://mirror.example/ubuntu/\tpriority:1\nhttp://other.example/\n";
        assert_eq!(
            first_mirror(list).as_deref(),
            Some("http://mirror.example/ubuntu/")
        );
    }
}
