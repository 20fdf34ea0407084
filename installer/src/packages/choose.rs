//! Which of several packages is for a host, from their file names and its os-release(5). Names are
//! those of the published packages, `ossfs_1.91.10_ubuntu22.04_amd64.deb` and
//! `ossfs_1.91.10_centos8.0_x86_64.rpm`, and those that rpm and dpkg make themselves.

use crate::checks::numbers;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Rpm,
    Deb,
}

/// A package, by its file name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) file: String,
    pub(crate) format: Format,
    pub(crate) version: Vec<u32>,
    /// The distribution that it is for, `ubuntu22.04`; nothing if the name has none.
    system: Option<String>,
    machine: String,
}

impl Package {
    /// The package of ossfs in the file `name`.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (stem, format) = match name.rsplit_once('.')? {
            (stem, "rpm") => (stem, Format::Rpm),
            (stem, "deb") => (stem, Format::Deb),
            _ => return None,
        };
        // This machine has the character that separates in its name.
        let plain = stem.replace("x86_64", "amd64");
        let parts: Vec<&str> = plain.split('_').collect();
        let (version, system, machine) = match parts[..] {
            ["ossfs", version, system, machine] => (version, Some(system), machine),
            ["ossfs", version, machine] => (version, None, machine),
            _ => return Self::parse_rpm(name, stem).filter(|_| format == Format::Rpm),
        };
        Some(Self {
            file: name.to_owned(),
            format,
            version: numbers(version.split(['-', '~', '+']).next()?)?,
            system: system.map(str::to_owned),
            machine: machine_of(machine).to_owned(),
        })
    }

    /// `ossfs-1.91.10-1.el8.x86_64`, as rpm names its files.
    fn parse_rpm(name: &str, stem: &str) -> Option<Self> {
        let (rest, machine) = stem.rsplit_once('.')?;
        let (version, release) = rest.strip_prefix("ossfs-")?.split_once('-')?;
        let system = release
            .split('.')
            .find(|part| part.starts_with("el") || part.starts_with("al"));
        Some(Self {
            file: name.to_owned(),
            format: Format::Rpm,
            version: numbers(version)?,
            system: system.map(str::to_owned),
            machine: machine_of(machine).to_owned(),
        })
    }
}

/// The machine by the name that uname(2) has for it.
fn machine_of(name: &str) -> &str {
    match name {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        other => other,
    }
}

/// What the host's /etc/os-release says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct OsRelease {
    id: String,
    like: Vec<String>,
    version: String,
    platform: String,
}

impl OsRelease {
    pub(crate) fn parse(text: &str) -> Self {
        let mut os = Self::default();
        for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
            let value = value.trim().trim_matches(['"', '\'']).to_owned();
            match key {
                "ID" => os.id = value,
                "ID_LIKE" => os.like = value.split_whitespace().map(str::to_owned).collect(),
                "VERSION_ID" => os.version = value,
                "PLATFORM_ID" => os.platform = value,
                _ => {}
            }
        }
        os
    }

    fn format(&self) -> Format {
        let is = |name: &str| self.id == name || self.like.iter().any(|like| like == name);
        match is("debian") || is("ubuntu") {
            true => Format::Deb,
            false => Format::Rpm,
        }
    }

    fn major(&self) -> &str {
        self.version.split('.').next().unwrap_or("")
    }

    /// The release of Enterprise Linux that the host is compatible with, `8`.
    fn enterprise_release(&self) -> Option<&str> {
        if let Some(platform) = self.platform.strip_prefix("platform:") {
            return Some(platform.trim_start_matches(|c: char| c.is_ascii_alphabetic()));
        }
        match (self.id.as_str(), self.major()) {
            // Alibaba Cloud Linux has version numbers of its own.
            ("alinux", "2") => Some("7"),
            ("alinux", "3") => Some("8"),
            ("alinux", _) => None,
            ("centos" | "rhel" | "rocky" | "almalinux" | "ol" | "anolis", major) => Some(major),
            _ => None,
        }
    }

    /// Whether a package for `system` is for this host.
    fn takes(&self, system: &str) -> bool {
        let at = system.find(|c: char| c.is_ascii_digit());
        let (name, version) = system.split_at(at.unwrap_or(system.len()));
        let major = version.split('.').next().unwrap_or("");
        match name {
            "centos" | "el" | "al" | "rhel" => self.enterprise_release() == Some(major),
            _ if name != self.id => false,
            // Releases of Ubuntu have a dot in their name, those of others differ after it.
            "ubuntu" => version == self.version,
            _ => major == self.major(),
        }
    }
}

/// The newest of `packages` for the host.
pub(crate) fn choose<'a>(
    packages: &'a [Package],
    os: &OsRelease,
    machine: &str,
) -> Option<&'a Package> {
    packages
        .iter()
        .filter(|package| package.format == os.format())
        .filter(|package| package.machine == machine)
        .filter(|package| {
            package
                .system
                .as_ref()
                .is_none_or(|system| os.takes(system))
        })
        .max_by_key(|package| &package.version)
}

/// The name that a package for the host would have.
pub(crate) fn wanted(os: &OsRelease, machine: &str) -> String {
    let machine = match (os.format(), machine) {
        (Format::Deb, "x86_64") => "amd64",
        (Format::Deb, "aarch64") => "arm64",
        (_, machine) => machine,
    };
    match (os.format(), os.enterprise_release()) {
        (Format::Deb, _) => format!("ossfs_VERSION_{}{}_{machine}.deb", os.id, os.version),
        (Format::Rpm, Some(release)) => format!("ossfs_VERSION_centos{release}.0_{machine}.rpm"),
        (Format::Rpm, None) => format!("ossfs_VERSION_{}{}_{machine}.rpm", os.id, os.version),
    }
}

#[cfg(test)]
mod tests {
    use super::{OsRelease, Package, choose, wanted};

    #[test]
    fn the_newest_package_for_the_host_is_chosen() {
        let packages: Vec<Package> = [
            "ossfs_1.91.10_ubuntu22.04_amd64.deb",
            "ossfs_1.91.9_ubuntu22.04_amd64.deb",
            "ossfs_1.91.10_ubuntu22.04_arm64.deb",
            "ossfs_1.91.10_debian12_amd64.deb",
            "ossfs_1.91.10_centos7.0_x86_64.rpm",
            "ossfs_1.91.10_centos8.0_x86_64.rpm",
            "ossfs-1.91.10-1.el9.x86_64.rpm",
            "ossfs_1.80.6_sles15_x86_64.rpm",
            "ossfs_1.91_x86_64.rpm.sha256",
            "README.md",
            "other_1.0_amd64.deb",
        ]
        .into_iter()
        .filter_map(Package::parse)
        .collect();
        assert_eq!(packages.len(), 8);
        for (os, machine, expected) in [
            (
                "ID=ubuntu\nID_LIKE=debian\nVERSION_ID=\"22.04\"",
                "x86_64",
                Some("ossfs_1.91.10_ubuntu22.04_amd64.deb"),
            ),
            (
                "ID=ubuntu\nID_LIKE=debian\nVERSION_ID=\"22.04\"",
                "aarch64",
                Some("ossfs_1.91.10_ubuntu22.04_arm64.deb"),
            ),
            ("ID=ubuntu\nVERSION_ID=\"24.04\"", "x86_64", None),
            (
                "ID=debian\nVERSION_ID=\"12\"",
                "x86_64",
                Some("ossfs_1.91.10_debian12_amd64.deb"),
            ),
            (
                "ID=\"centos\"\nVERSION_ID=\"7\"",
                "x86_64",
                Some("ossfs_1.91.10_centos7.0_x86_64.rpm"),
            ),
            (
                "ID=\"alinux\"\nID_LIKE=\"rhel fedora centos anolis\"\nVERSION_ID=\"3\"\nPLATFORM_ID=\"platform:al8\"",
                "x86_64",
                Some("ossfs_1.91.10_centos8.0_x86_64.rpm"),
            ),
            (
                "ID=\"alinux\"\nVERSION_ID=\"2.1903\"",
                "x86_64",
                Some("ossfs_1.91.10_centos7.0_x86_64.rpm"),
            ),
            (
                "ID=rocky\nVERSION_ID=9.4\nPLATFORM_ID=\"platform:el9\"",
                "x86_64",
                Some("ossfs-1.91.10-1.el9.x86_64.rpm"),
            ),
            (
                "ID=sles\nVERSION_ID=\"15.5\"",
                "x86_64",
                Some("ossfs_1.80.6_sles15_x86_64.rpm"),
            ),
            ("ID=flatcar\nVERSION_ID=4000.1", "x86_64", None),
            ("", "x86_64", None),
        ] {
            let chosen = choose(&packages, &OsRelease::parse(os), machine);
            assert_eq!(
                chosen.map(|package| package.file.as_str()),
                expected,
                "{os}"
            );
        }
    }

    #[test]
    fn a_name_without_distribution_is_for_all() {
        let packages = [Package::parse("ossfs_1.91.10-1_arm64.deb").unwrap()];
        let os = OsRelease::parse("ID=debian\nVERSION_ID=13");
        assert!(choose(&packages, &os, "aarch64").is_some());
        assert!(choose(&packages, &os, "x86_64").is_none());
    }

    #[test]
    fn what_is_wanted_has_a_name() {
        for (os, expected) in [
            (
                "ID=ubuntu\nVERSION_ID=\"24.04\"",
                "ossfs_VERSION_ubuntu24.04_amd64.deb",
            ),
            (
                "ID=rhel\nVERSION_ID=\"8.9\"",
                "ossfs_VERSION_centos8.0_x86_64.rpm",
            ),
            (
                "ID=sles\nVERSION_ID=\"15.5\"",
                "ossfs_VERSION_sles15.5_x86_64.rpm",
            ),
        ] {
            assert_eq!(wanted(&OsRelease::parse(os), "x86_64"), expected);
        }
    }
}
