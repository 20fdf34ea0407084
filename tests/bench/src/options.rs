//! What the program is asked to do.

use anyhow::{Context as _, Result, bail};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

const USAGE: &str = "\
usage: bench --driver PATH --store PATH [--quick] [--json FILE] [--write]
       bench --driver PATH --store PATH --check-instructions | --update-instructions

  --driver PATH          the driver's release binary
  --store PATH           the program s3-store of tests/store
  --quick                few rounds and small numbers: shows that everything runs, not how fast
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
}

impl Options {
    /// The options in `arguments`; an error holds the usage text.
    pub(crate) fn parse(arguments: &[OsString]) -> Result<Self> {
        let mut mode = Mode::Measure;
        let (mut driver, mut store, mut json) = (None, None, None);
        let (mut quick, mut write) = (false, false);
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
                "--quick" => quick = true,
                "--write" => write = true,
                "--check-instructions" => mode = Mode::CheckInstructions,
                "--update-instructions" => mode = Mode::UpdateInstructions,
                _ => bail!("unknown argument {name}\n\n{USAGE}"),
            }
        }
        Ok(Self {
            mode,
            driver: program(driver, "--driver")?,
            store: program(store, "--store")?,
            quick,
            write,
            json,
        })
    }

    /// `full`, or `quick` in a run that only shows that everything runs.
    pub(crate) fn rounds(&self, full: usize, quick: usize) -> usize {
        if self.quick { quick } else { full }
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
    use super::{Mode, Options};
    use std::ffi::OsString;

    fn parse(words: &str) -> Result<Options, String> {
        let words: Vec<OsString> = words.split(' ').map(OsString::from).collect();
        Options::parse(&words).map_err(|e| e.to_string())
    }

    #[test]
    fn knows_its_words() {
        let options = parse("--driver /bin/true --store /bin/true --quick").unwrap();
        assert_eq!((options.mode, options.quick), (Mode::Measure, true));
        assert_eq!((options.rounds(9, 2), options.write), (2, false));
        for (words, beginning) in [
            ("--fast", "unknown argument --fast"),
            ("--driver", "--driver needs a path"),
            ("--quick", "--driver is missing"),
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
