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

/// Releases that derived distributions name by their code names (UBUNTU_CODENAME, DEBIAN_CODENAME).
const CODE_NAMES: [(&str, &str, &str); 9] = [
    ("ubuntu", "bionic", "18.04"),
    ("ubuntu", "focal", "20.04"),
    ("ubuntu", "jammy", "22.04"),
    ("ubuntu", "noble", "24.04"),
    ("ubuntu", "resolute", "26.04"),
    ("debian", "buster", "10"),
    ("debian", "bullseye", "11"),
    ("debian", "bookworm", "12"),
    ("debian", "trixie", "13"),
];
/// The distributions that Enterprise Linux can be told from its packages by, the generic names first.
const ENTERPRISE: [&str; 9] = [
    "centos",
    "el",
    "al",
    "rhel",
    "rocky",
    "almalinux",
    "anolis",
    "alinux",
    "ol",
];
const GENERIC: usize = 4;

/// How well a package fits a host: better is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    /// Its name has no distribution.
    Any,
    /// For the one that the host's is derived from (`ID_LIKE`), or another one that is compatible.
    Compatible,
    /// For Enterprise Linux of the host's release.
    Enterprise,
    /// For the host's own distribution.
    Own,
}

/// What the host's /etc/os-release says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct OsRelease {
    id: String,
    like: Vec<String>,
    version: String,
    platform: String,
    code_names: Vec<String>,
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
                "UBUNTU_CODENAME" | "DEBIAN_CODENAME" | "VERSION_CODENAME" => {
                    os.code_names.push(value);
                }
                _ => {}
            }
        }
        os
    }

    fn is_like(&self, name: &str) -> bool {
        self.id == name || self.like.iter().any(|like| like == name)
    }

    fn format(&self) -> Format {
        match self.is_like("debian") || self.is_like("ubuntu") {
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
            (_, major @ ("7" | "8" | "9" | "10"))
                if self.is_like("rhel") || self.is_like("centos") =>
            {
                Some(major)
            }
            _ => None,
        }
    }

    /// The release of `distribution` that the host is derived from, by its code name.
    fn derived_from(&self, distribution: &str) -> Option<&'static str> {
        let (_, _, release) = CODE_NAMES.iter().find(|(name, code, _)| {
            *name == distribution && self.code_names.iter().any(|found| found == code)
        })?;
        Some(release)
    }

    /// How well a package for `system` fits this host; nothing if it is for another one.
    fn fit(&self, system: &str) -> Option<Fit> {
        let at = system.find(|c: char| c.is_ascii_digit());
        let (name, version) = system.split_at(at.unwrap_or(system.len()));
        let name = match name {
            "anolisos" => "anolis",
            "rockylinux" => "rocky",
            "alma" => "almalinux",
            name => name,
        };
        let major = version.split('.').next().unwrap_or("");
        // Releases of Ubuntu have a dot in their name, those of others differ after it.
        let is_release = |release: &str| match name {
            "ubuntu" => version == release,
            _ => Some(major) == release.split('.').next(),
        };
        if name == self.id && is_release(&self.version) {
            return Some(Fit::Own);
        }
        if let Some(at) = ENTERPRISE.iter().position(|known| *known == name) {
            let release = match (name, major) {
                ("alinux", "2") => "7",
                ("alinux", "3") => "8",
                (_, major) => major,
            };
            let fit = if at < GENERIC {
                Fit::Enterprise
            } else {
                Fit::Compatible
            };
            return (self.enterprise_release() == Some(release)).then_some(fit);
        }
        if self.id == name {
            return None;
        }
        let is_derived = match name {
            "ubuntu" | "debian" => self.derived_from(name).is_some_and(is_release),
            _ => self.is_like(name) && is_release(&self.version),
        };
        is_derived.then_some(Fit::Compatible)
    }
}

/// The newest of `packages` for the host; of equal versions the one that fits best.
pub(crate) fn choose<'a>(
    packages: &'a [Package],
    os: &OsRelease,
    machine: &str,
) -> Option<&'a Package> {
    packages
        .iter()
        .filter(|package| package.format == os.format())
        .filter(|package| package.machine == machine)
        .filter_map(|package| {
            let fit = match &package.system {
                Some(system) => os.fit(system)?,
                None => Fit::Any,
            };
            Some((package, fit))
        })
        .max_by_key(|(package, fit)| (&package.version, *fit))
        .map(|(package, _)| package)
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
    fn derived_distributions_take_the_packages_that_fit_best() {
        let packages: Vec<Package> = [
            "ossfs_1.91.10_anolisos8.0_x86_64.rpm",
            "ossfs_1.91.10_centos8.0_x86_64.rpm",
            "ossfs_1.91.10_rockylinux9.0_x86_64.rpm",
            "ossfs_1.91.10_alinux2.0_x86_64.rpm",
            "ossfs_1.91.10_ubuntu22.04_amd64.deb",
            "ossfs_1.91.10_ubuntu24.04_amd64.deb",
            "ossfs_1.91.10_debian12.0_amd64.deb",
        ]
        .into_iter()
        .filter_map(Package::parse)
        .collect();
        for (os, expected) in [
            (
                "ID=anolis\nVERSION_ID=8.8\nID_LIKE=\"rhel fedora centos\"",
                Some("anolisos8.0"),
            ),
            ("ID=anolis\nVERSION_ID=23", None),
            (
                "ID=almalinux\nVERSION_ID=8.9\nPLATFORM_ID=platform:el8",
                Some("centos8.0"),
            ),
            (
                "ID=rhel\nVERSION_ID=9.4\nPLATFORM_ID=platform:el9",
                Some("rockylinux9.0"),
            ),
            (
                "ID=eurolinux\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID=9.1",
                Some("rockylinux9.0"),
            ),
            ("ID=alinux\nVERSION_ID=2.1903", Some("alinux2.0")),
            (
                "ID=amzn\nID_LIKE=fedora\nVERSION_ID=2023\nPLATFORM_ID=platform:al2023",
                None,
            ),
            (
                "ID=amzn\nID_LIKE=\"centos rhel fedora\"\nVERSION_ID=2",
                None,
            ),
            (
                "ID=linuxmint\nID_LIKE=\"ubuntu debian\"\nVERSION_ID=21.3\nUBUNTU_CODENAME=jammy",
                Some("ubuntu22.04"),
            ),
            (
                "ID=linuxmint\nID_LIKE=debian\nVERSION_ID=6\nDEBIAN_CODENAME=bookworm",
                Some("debian12.0"),
            ),
            (
                "ID=ubuntu\nID_LIKE=debian\nVERSION_ID=23.10\nVERSION_CODENAME=mantic",
                None,
            ),
            (
                "ID=raspbian\nID_LIKE=debian\nVERSION_ID=12\nVERSION_CODENAME=bookworm",
                Some("debian12.0"),
            ),
        ] {
            let chosen = choose(&packages, &OsRelease::parse(os), "x86_64");
            let chosen = chosen.map(|package| package.file.split('_').nth(2).unwrap_or_default());
            assert_eq!(chosen, expected, "{os}");
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
