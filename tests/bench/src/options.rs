//! What the program is asked to do.

use crate::measure::WORDS;
use anyhow::{Context as _, Result, bail};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

const USAGE: &str = "\
usage: bench --driver PATH --store PATH [--quick] [--rows WORD,…] [--json FILE] [--write]
       bench --driver PATH --store PATH --check-instructions | --update-instructions

  --driver PATH          the driver's release binary
  --store PATH           the program s3-store of tests/store
  --quick                few rounds and small numbers: shows that everything runs, not how fast
  --rows WORD,…          some rows only: init, mounts, systemd, deaths, memory, serve, crowd, data
  --json FILE            the results as JSON
  --write                puts table, JSON and plot into tests/bench/
  --check-instructions   counts instructions; more than 5 % above instructions.json fails
  --update-instructions  counts instructions and rewrites instructions.json

Needs root, /dev/fuse and s3fs; counting instructions needs valgrind.
";

/// One of the things the program does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Measure,
    CheckInstructions,
    UpdateInstructions,
}

/// The parsed command line.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) mode: Mode,
    pub(crate) driver: PathBuf,
    pub(crate) store: PathBuf,
    pub(crate) quick: bool,
    pub(crate) write: bool,
    pub(crate) json: Option<PathBuf>,
    /// Words for groups of rows; none for all.
    rows: Vec<String>,
}

impl Options {
    /// The options in `arguments`; an error holds the usage text.
    pub(crate) fn parse(arguments: &[OsString]) -> Result<Self> {
        let mut mode = Mode::Measure;
        let (mut driver, mut store, mut json) = (None, None, None);
        let (mut quick, mut write, mut rows) = (false, false, Vec::new());
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let name = word.to_string_lossy();
            let mut path = || {
                words
                    .next()
                    .map(PathBuf::from)
                    .with_context(|| format!("{name} needs a path\n\n{USAGE}"))
            };
            match name.as_ref() {
                "--driver" => driver = Some(path()?),
                "--store" => store = Some(path()?),
                "--json" => json = Some(path()?),
                "--rows" => rows = groups(words.next())?,
                "--quick" => quick = true,
                "--write" => write = true,
                "--check-instructions" => mode = Mode::CheckInstructions,
                "--update-instructions" => mode = Mode::UpdateInstructions,
                _ => bail!("unknown argument {name}\n\n{USAGE}"),
            }
        }
        if write && (quick || !rows.is_empty()) {
            bail!("--write keeps a whole run: not with --quick or --rows\n\n{USAGE}");
        }
        Ok(Self {
            mode,
            driver: program(driver, "--driver")?,
            store: program(store, "--store")?,
            quick,
            write,
            json,
            rows,
        })
    }

    /// Whether the rows of the group `word` are to be measured.
    pub(crate) fn wants(&self, word: &str) -> bool {
        self.rows.is_empty() || self.rows.iter().any(|row| row == word)
    }

    /// `full`, or `quick` in a run that only shows that everything runs.
    pub(crate) fn rounds(&self, full: usize, quick: usize) -> usize {
        if self.quick { quick } else { full }
    }
}

/// The words of groups in the value of `--rows`.
fn groups(value: Option<&OsString>) -> Result<Vec<String>> {
    let value = value.map(|value| value.to_string_lossy().into_owned());
    let words: Vec<String> = value
        .unwrap_or_default()
        .split(',')
        .map(str::to_owned)
        .collect();
    match words.iter().find(|word| !WORDS.contains(&word.as_str())) {
        Some(word) => bail!("--rows: there are no rows {word:?}\n\n{USAGE}"),
        None => Ok(words),
    }
}

fn program(path: Option<PathBuf>, name: &str) -> Result<PathBuf> {
    let path = path.with_context(|| format!("{name} is missing\n\n{USAGE}"))?;
    std::path::absolute(&path)
        .ok()
        .filter(|path| Path::is_file(path))
        .with_context(|| format!("{name} {}: there is no such file", path.display()))
}

#[cfg(test)]
mod tests {
    use super::{Mode, Options, USAGE};
    use std::ffi::OsString;

    fn parse(words: &str) -> Result<Options, String> {
        let words: Vec<OsString> = words.split(' ').map(OsString::from).collect();
        Options::parse(&words).map_err(|e| e.to_string())
    }

    #[test]
    fn names_every_group_of_rows() {
        let line = USAGE.lines().find(|line| line.contains("--rows WORD,… "));
        assert!(line.unwrap().ends_with(&super::WORDS.join(", ")));
    }

    #[test]
    fn knows_its_words() {
        let options = parse("--driver /bin/true --store /bin/true --quick").unwrap();
        assert_eq!((options.mode, options.quick), (Mode::Measure, true));
        assert_eq!((options.rounds(9, 2), options.write), (2, false));
        assert!(options.wants("init") && options.wants("data"));
        let some = parse("--driver /bin/true --store /bin/true --rows data,serve").unwrap();
        assert!(some.wants("serve") && !some.wants("init"));
        for (words, beginning) in [
            ("--fast", "unknown argument --fast"),
            ("--driver", "--driver needs a path"),
            ("--quick", "--driver is missing"),
            ("--rows data,date", "--rows: there are no rows \"date\""),
            ("--rows", "--rows: there are no rows \"\""),
            ("--rows data --write", "--write keeps a whole run"),
            (
                "--driver /no --store /bin/true",
                "--driver /no: there is no",
            ),
        ] {
            let error = parse(words).unwrap_err();
            assert!(error.starts_with(beginning), "{error}");
        }
    }
}
