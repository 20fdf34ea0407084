//! ossfs's argument list. No part of it is a secret: keys go through the passwd file.

use crate::credentials::Credentials;
use crate::options::option::MountOption;
use crate::request::location::Location;
use std::path::Path;

/// The arguments after the program's name: `BUCKET[:/PATH] STAGING -f -o …`. ossfs stays in the
/// foreground, where its process is known from the start and its output is read to the end. What the
/// driver decides comes last, because the last of two equal options wins. Keys are not among them:
/// they are in `passwd_file`.
pub(crate) fn arguments(
    location: &Location,
    staging: &Path,
    options: &[MountOption],
    read_only: bool,
    credentials: &Credentials,
    passwd_file: &Path,
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
            Credentials::Keys(_) => {
                MountOption::with_value("passwd_file", passwd_file.to_string_lossy())
            }
            Credentials::RamRole(role) => MountOption::with_value("ram_role", role),
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
    use super::arguments;
    use crate::credentials::{Credentials, KeyPair};
    use crate::options::option::MountOption;
    use crate::request::location::{Bucket, Endpoint, Location, SubDirectory};
    use std::path::Path;

    #[test]
    fn what_the_driver_decides_comes_last() {
        let location = Location {
            bucket: Bucket::parse("docker").unwrap(),
            path: SubDirectory::parse("/a b").unwrap(),
            endpoint: Endpoint::parse("http://127.0.0.1:9000").unwrap(),
        };
        let options = [MountOption::with_value("uid", "7"), MountOption::flag("-s")];
        let (staging, passwd) = (Path::new("/s/staging"), Path::new("/s/passwd"));
        let keys = Credentials::Keys(KeyPair::parse("keyid", "secret").ok().unwrap());
        assert_eq!(
            arguments(&location, staging, &options, true, &keys, passwd),
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
        let role = Credentials::RamRole("node-role".to_owned());
        let arguments = arguments(&location, staging, &[], false, &role, passwd);
        assert!(arguments.contains(&"ram_role=node-role".to_owned()));
        assert!(!arguments.iter().any(|a| a == "ro" || a.contains("passwd")));
    }
}
