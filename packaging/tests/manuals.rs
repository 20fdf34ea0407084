//! The manual pages name what the programs' own `--help` does: every command and every option, and no
//! option besides; they and the README name every key of the node configuration; the packages hold
//! both pages.

use anyhow::{Context as _, Result, ensure};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAMS: [&str; 2] = ["oss", "oss-installer"];

#[test]
#[ignore = "needs the programs in dist/: make build"]
fn a_page_has_the_commands_and_options_of_its_program() -> Result<()> {
    for program in PROGRAMS {
        let page = Page::read(program)?;
        let general = Help::of(program, None)?;
        ensure!(!general.commands.is_empty(), "{program} has no commands");
        let mut options = general.options;
        for command in &general.commands {
            assert!(
                page.has("Cm", command),
                "{program}.8 has no command {command:?}"
            );
            options.extend(Help::of(program, Some(command))?.options);
        }
        options.retain(|option| !["help", "version"].contains(&option.as_str()));
        let mut documented = page.options();
        documented.retain(|option| !["help", "version"].contains(&option.as_str()));
        assert_eq!(documented, options, "{program}.8 and {program} --help");
    }
    Ok(())
}

#[test]
#[ignore = "needs the programs in dist/: make build"]
fn the_installers_page_has_a_variable_for_each_option_with_a_value() -> Result<()> {
    let page = Page::read("oss-installer")?;
    for option in Help::of("oss-installer", Some("run"))?.with_value {
        let variable = format!(
            "OSS_INSTALLER_{}",
            option.replace('-', "_").to_ascii_uppercase()
        );
        assert!(
            page.has("Ev", &variable),
            "{variable} of --{option} is missing"
        );
    }
    Ok(())
}

#[test]
#[ignore = "needs root and the programs in dist/: make build"]
fn every_key_of_the_node_configuration_is_documented() -> Result<()> {
    let page = Page::read("oss")?;
    let readme = std::fs::read_to_string(package().join("../README.md"))?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("config.json");
    for config in [r#"{"?":1}"#, r#"{"nodeCredentials":{"?":1}}"#] {
        std::fs::write(&file, config)?;
        let output = Command::new(package().join("../dist/oss"))
            .args(["mount", "/pods/u/volumes/alicloud~oss/v", "{}"])
            .env("OSS_FLEXVOLUME_CONFIG", &file)
            .output()?;
        let message = String::from_utf8(output.stdout)?;
        // … unknown field `?`, expected one of `a`, `b` at line 1 …
        let keys: Vec<&str> = message.split('`').skip(3).step_by(2).collect();
        ensure!(keys.len() > 2, "no keys in {message:?}");
        for key in keys {
            assert!(page.has("Cm", key), "oss.8 lacks {key}");
            assert!(
                readme.contains(&format!("`{key}`")),
                "README.md lacks {key}"
            );
        }
    }
    Ok(())
}

#[test]
fn both_packages_hold_every_page() -> Result<()> {
    let manifest = std::fs::read_to_string(package().join("Cargo.toml"))?;
    for program in PROGRAMS {
        let deb = format!("[\"{program}.8\", \"usr/share/man/man8/{program}.8\", \"644\"]");
        let rpm = format!("source = \"{program}.8\", dest = \"/usr/share/man/man8/{program}.8\"");
        assert!(manifest.contains(&deb), "the .deb lacks {program}.8");
        assert!(manifest.contains(&rpm), "the .rpm lacks {program}.8");
    }
    Ok(())
}

/// lintian(1) asks for a changelog of a package with its version, and a copyright that names the licence.
#[test]
fn the_debian_changelog_begins_with_this_version() -> Result<()> {
    let changelog = std::fs::read_to_string(package().join("changelog"))?;
    let expected = format!(
        "alicloud-oss-flexvolume ({}-1) unstable;",
        env!("CARGO_PKG_VERSION")
    );
    assert!(changelog.starts_with(&expected), "{changelog}");
    let manifest = std::fs::read_to_string(package().join("Cargo.toml"))?;
    let maintainer = manifest
        .lines()
        .find_map(|line| line.strip_prefix("maintainer = "));
    let maintainer = maintainer.context("no maintainer")?.trim_matches('"');
    assert!(
        changelog.contains(&format!(" -- {maintainer}  ")),
        "{maintainer}"
    );
    Ok(())
}

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A page in mdoc(7).
struct Page(String);

impl Page {
    fn read(program: &str) -> Result<Self> {
        let path: PathBuf = package().join(format!("{program}.8"));
        let text = std::fs::read_to_string(&path);
        Ok(Self(
            text.with_context(|| format!("read {}", path.display()))?,
        ))
    }

    /// The words of each line that is a request: `.It Fl -drain` is `It`, `Fl`, `-drain`.
    fn requests(&self) -> impl Iterator<Item = Vec<&str>> {
        let lines = self.0.lines().filter_map(|line| line.strip_prefix('.'));
        lines.map(|line| line.split_whitespace().collect())
    }

    /// Whether `word` is on a line with the request `name`: `.It Cm one , two` has both.
    fn has(&self, name: &str, word: &str) -> bool {
        self.requests()
            .any(|words| words.contains(&name) && words.contains(&word))
    }

    /// The long options, without their dashes.
    fn options(&self) -> BTreeSet<String> {
        let pairs = self.requests().flat_map(|words| {
            let pairs = words.windows(2).map(|pair| (pair[0], pair[1]));
            pairs.collect::<Vec<_>>()
        });
        pairs
            .filter_map(|(name, word)| word.strip_prefix('-').filter(|_| name == "Fl"))
            .map(str::to_owned)
            .collect()
    }
}

/// What `--help` of a program in dist/, or of one of its commands, lists.
#[derive(Default)]
struct Help {
    commands: Vec<String>,
    options: BTreeSet<String>,
    with_value: BTreeSet<String>,
}

impl Help {
    fn of(program: &str, command: Option<&str>) -> Result<Self> {
        let path = package().join("../dist").join(program);
        let output = Command::new(&path).args(command).arg("--help").output();
        let output = output.with_context(|| format!("run {}", path.display()))?;
        ensure!(
            output.status.success(),
            "{program} {command:?} --help failed"
        );
        let mut help = Self::default();
        let mut section = "";
        let text = String::from_utf8(output.stdout)?;
        for line in text.lines() {
            if !line.starts_with(' ') {
                section = line.trim_end();
                continue;
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            if section == "Commands:" {
                help.commands
                    .extend(words.first().map(|&name| name.to_owned()));
            }
            let Some(at) = words.iter().position(|word| word.starts_with("--")) else {
                continue;
            };
            // Not one that a description speaks of.
            if section != "Options:" || at > 1 {
                continue;
            }
            let name = words[at].trim_start_matches('-').to_owned();
            if words.get(at + 1).is_some_and(|word| word.starts_with('<')) {
                help.with_value.insert(name.clone());
            }
            help.options.insert(name);
        }
        Ok(help)
    }
}
