//! ossfs's argument list. No part of it is a secret: keys go through the passwd file.

use crate::request::location::Location;
use crate::request::mount_option::MountOption;
use std::path::Path;

/// What ossfs gets its credentials from.
pub(crate) enum CredentialOption<'a> {
    PasswdFile(&'a Path),
    RamRole(&'a str),
}

/// The arguments behind the program's name: `BUCKET[:/PATH] STAGING -f -o …`. ossfs stays in the
/// foreground, where its process is known from the start and its words are heard to the end. What
/// the driver decides stands last, because the last of two equal options wins.
pub(crate) fn arguments(
    location: &Location,
    staging: &Path,
    options: &[MountOption],
    read_only: bool,
    credentials: &CredentialOption,
) -> Vec<String> {
    let mut arguments = vec![
        location.source(),
        staging.to_string_lossy().into_owned(),
        "-f".to_owned(),
    ];
    arguments.extend(options.iter().flat_map(MountOption::arguments));
    let read_only = read_only.then(|| MountOption::flag("ro"));
    let own = [
        MountOption::flag("allow_other"),
        MountOption::flag("nosuid"),
        MountOption::flag("nodev"),
        MountOption::with_value("url", location.endpoint.as_str()),
        match credentials {
            CredentialOption::PasswdFile(file) => {
                MountOption::with_value("passwd_file", file.to_string_lossy())
            }
            CredentialOption::RamRole(role) => MountOption::with_value("ram_role", *role),
        },
    ];
    arguments.extend(
        read_only
            .iter()
            .chain(&own)
            .flat_map(MountOption::arguments),
    );
    arguments
}

#[cfg(test)]
mod tests {
    use super::{CredentialOption, arguments};
    use crate::request::location::{Bucket, Endpoint, Location, SubDirectory};
    use crate::request::mount_option::MountOption;
    use std::path::Path;

    #[test]
    fn what_the_driver_decides_stands_last() {
        let location = Location {
            bucket: Bucket::parse("docker").unwrap(),
            path: SubDirectory::parse("/a b").unwrap(),
            endpoint: Endpoint::parse("http://127.0.0.1:9000").unwrap(),
        };
        let options = [MountOption::with_value("uid", "7"), MountOption::flag("-s")];
        let file = CredentialOption::PasswdFile(Path::new("/s/passwd"));
        assert_eq!(
            arguments(&location, Path::new("/s/staging"), &options, true, &file),
            [
                "docker:/a b",
                "/s/staging",
                "-f",
                "-o",
                "uid=7",
                "-s",
                "-o",
                "ro",
                "-o",
                "allow_other",
                "-o",
                "nosuid",
                "-o",
                "nodev",
                "-o",
                "url=http://127.0.0.1:9000",
                "-o",
                "passwd_file=/s/passwd"
            ]
        );
        let role = CredentialOption::RamRole("node-role");
        let arguments = arguments(&location, Path::new("/s/staging"), &[], false, &role);
        assert!(arguments.contains(&"ram_role=node-role".to_owned()));
        assert!(!arguments.iter().any(|a| a == "ro" || a.contains("passwd")));
    }
}
