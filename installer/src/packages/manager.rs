//! The host's package manager: dpkg or rpm alone, which need every dependency on the node already, or
//! apt-get, dnf, yum or zypper, which take them from the node's own repositories.

use super::choose::Format;
use super::dependencies::Dependencies;
use crate::host::Host;
use crate::host::program::{self, Output};
use alicloud_oss::text::list;
use anyhow::{Context as _, Result, bail};
use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

/// Enough for a package manager on a slow disk that waits for another one's lock.
pub(crate) const LIMIT: Duration = Duration::from_secs(300);

/// A package to install on `host`.
pub(crate) struct Manager<'a> {
    pub(crate) host: &'a Host,
    pub(crate) format: Format,
    pub(crate) dependencies: Dependencies,
    /// The package, as it is seen from here.
    pub(crate) file: &'a Path,
    /// Where a copy of it is made on the host.
    pub(crate) copy: &'a Path,
}

/// What keeps the configuration that an administrator has changed, and asks nothing.
const APT: [&str; 9] = [
    "-o",
    "Dpkg::Options::=--force-confold",
    "-o",
    "Dpkg::Use-Pty=0",
    "-o",
    "DPkg::Lock::Timeout=60",
    "--assume-yes",
    "--no-install-recommends",
    "install",
];

impl Manager<'_> {
    /// Installs the package, by way of the copy, which stays. What `is_new` and fails half-way is removed
    /// again. An error names every dependency that is missing.
    pub(crate) fn install(&self, is_new: bool) -> Result<()> {
        match (self.format, self.dependencies) {
            (Format::Rpm, Dependencies::Installed) => self.run("rpm", &["-U"]),
            (Format::Rpm, Dependencies::Repositories) => self.install_rpm(),
            (Format::Deb, Dependencies::Repositories) => self.install_deb(),
            (Format::Deb, Dependencies::Installed) => {
                // dpkg unpacks a package before it sees what that needs: nothing is unpacked for that.
                self.run("dpkg", &["--dry-run", "--install"])?;
                let installed = self.run("dpkg", &["--force-confold", "--install"]);
                if installed.is_err() && is_new {
                    check(&self.output("dpkg", &["--remove", "ossfs"])?, "dpkg")?;
                }
                installed
            }
        }
    }

    fn install_deb(&self) -> Result<()> {
        let first = self.run("apt-get", &APT);
        if first.is_ok() {
            return first;
        }
        // The lists of a node that was never updated are empty, or name what is gone.
        check(
            &self.output("apt-get", &["--quiet", "update"])?,
            "apt-get update",
        )?;
        self.run("apt-get", &APT)
    }

    fn install_rpm(&self) -> Result<()> {
        for (name, options) in [
            ("dnf", ["--assumeyes", "install"].as_slice()),
            ("yum", &["--assumeyes", "install"]),
            (
                "zypper",
                &["--non-interactive", "install", "--allow-unsigned-rpm"],
            ),
        ] {
            let output = self.with_copy(name, options)?;
            if !output.is_missing() {
                return check(&output, name);
            }
        }
        bail!("the host has neither dnf nor yum nor zypper");
    }

    fn run(&self, name: &str, options: &[&str]) -> Result<()> {
        check(&self.with_copy(name, options)?, name)
    }

    fn with_copy(&self, name: &str, options: &[&str]) -> Result<Output> {
        let mut args: Vec<&OsStr> = options.iter().map(OsStr::new).collect();
        args.push(self.copy.as_os_str());
        program::run_with_copy(self.host, (self.file, self.copy), name, &args, LIMIT)
    }

    fn output(&self, name: &str, args: &[&str]) -> Result<Output> {
        let args: Vec<&OsStr> = args.iter().map(OsStr::new).collect();
        program::run_outside(self.host, name, &args, LIMIT)
    }
}

/// An error with the reason unless the package manager `name` succeeded.
fn check(output: &Output, name: &str) -> Result<()> {
    let missing = missing(&output.text);
    match output.clone().success() {
        Ok(_) => Ok(()),
        Err(e) if missing.is_empty() => Err(e).context(name.to_owned()),
        Err(_) => bail!(
            "{name}: it needs {}, which {} missing: install that first, or have the installer do it \
             (--ossfs-dependencies=repositories)",
            list(&missing, ", "),
            if missing.len() == 1 { "is" } else { "are" }
        ),
    }
}

/// The dependencies that are missing, as dpkg, rpm, apt-get and dnf name them.
fn missing(text: &str) -> Vec<String> {
    let between = |line: &str, before: &str, after: &str| {
        let (_, rest) = line.split_once(before)?;
        let (name, _) = rest.split_once(after)?;
        Some(name.trim().to_owned())
    };
    let mut found: Vec<String> = text
        .lines()
        .filter_map(|line| {
            let line = format!(" {} ", line.trim());
            between(&line, " depends on ", "; however:")
                .or_else(|| between(&line, " ", " is needed by "))
                .or_else(|| between(&line, " Depends: ", " but "))
                .or_else(|| between(&line, " nothing provides ", " needed by "))
        })
        .collect();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::{check, missing};
    use crate::host::program::Output;

    #[test]
    fn every_missing_dependency_is_named() {
        for (what, text, expected) in [
            (
                "dpkg",
                "dpkg: dependency problems prevent configuration of ossfs:\n ossfs depends on fuse \
                 (>= 2.9); however:\n  Package fuse is not installed.\n ossfs depends on \
                 libxml2; however:\n  Package libxml2 is not installed.\n",
                vec!["fuse (>= 2.9)", "libxml2"],
            ),
            (
                "rpm",
                "error: Failed dependencies:\n\tfuse >= 2.8.4 is needed by ossfs-1.91-1.x86_64\n\
                 \tlibfuse.so.2()(64bit) is needed by ossfs-1.91-1.x86_64\n",
                vec!["fuse >= 2.8.4", "libfuse.so.2()(64bit)"],
            ),
            (
                "apt-get",
                "The following packages have unmet dependencies:\n ossfs : Depends: fuse but it is \
                 not installable\n         Depends: libxml2 but it is not installable\n",
                vec!["fuse", "libxml2"],
            ),
            (
                "dnf",
                "Error: \n Problem: conflicting requests\n  - nothing provides fuse >= 2.8 needed by \
                 ossfs-1.91-1.x86_64\n",
                vec!["fuse >= 2.8"],
            ),
            ("other", "error: open of x failed\n", vec![]),
        ] {
            assert_eq!(missing(text), expected, "{what}");
        }
    }

    #[test]
    fn one_is_missing_and_two_are() {
        let said = |text: &str| {
            let output = Output {
                text: text.to_owned(),
                status: Some(1),
            };
            check(&output, "rpm").unwrap_err().to_string()
        };
        let one = said("a is needed by ossfs\n");
        assert!(
            one.starts_with("rpm: it needs a, which is missing: "),
            "{one}"
        );
        let two = said("a is needed by ossfs\nb is needed by ossfs\n");
        assert!(
            two.starts_with("rpm: it needs a, b, which are missing: "),
            "{two}"
        );
    }
}
