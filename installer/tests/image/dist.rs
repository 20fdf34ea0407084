//! The image: from nothing, `/oss` and `/oss-installer`, as `make build` leaves them.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The two files of the image, in its order of layers.
pub const FILES: [&str; 2] = ["oss", "oss-installer"];

/// An image's files.
#[derive(Clone)]
pub struct Image {
    directory: PathBuf,
    /// The driver in it, where it is not the one in the directory.
    driver: Option<Vec<u8>>,
}

impl Image {
    /// The release build in the directory that `OSS_DIST` names, else in the repository's `dist`.
    pub fn release() -> Self {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist");
        let directory = std::env::var_os("OSS_DIST").map_or(own, PathBuf::from);
        for name in FILES {
            let file = directory.join(name);
            assert!(
                file.exists(),
                "{} is missing: run make build first, or set OSS_DIST",
                file.display()
            );
        }
        Self {
            directory,
            driver: None,
        }
    }

    /// The same image with a driver of another build: the name of its build is another one, as
    /// after any change of its sources.
    pub fn rebuilt(&self) -> Self {
        let build = self.build();
        let name = build.split(['(', ')']).nth(1).unwrap();
        let other: String = name.chars().rev().collect();
        assert_ne!(name, other);
        let mut driver = std::fs::read(self.directory.join("oss")).unwrap();
        let places: Vec<usize> = driver
            .windows(name.len())
            .enumerate()
            .filter_map(|(at, bytes)| (bytes == name.as_bytes()).then_some(at))
            .collect();
        assert!(!places.is_empty(), "{build} is not in the driver");
        for at in places {
            driver[at..at + other.len()].copy_from_slice(other.as_bytes());
        }
        Self {
            directory: self.directory.clone(),
            driver: Some(driver),
        }
    }

    /// What the driver calls itself.
    pub fn build(&self) -> String {
        let directory = tempfile::tempdir().unwrap();
        let driver = directory.path().join("oss");
        std::fs::write(&driver, self.driver()).unwrap();
        std::fs::set_permissions(&driver, PermissionsExt::from_mode(0o755)).unwrap();
        let output = Command::new(driver).arg("--version").output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// The driver's bytes.
    pub fn driver(&self) -> Vec<u8> {
        let read = || std::fs::read(self.directory.join("oss")).unwrap();
        self.driver.clone().unwrap_or_else(read)
    }

    /// Unpacks the image into the directory `root`.
    pub fn unpack(&self, root: &Path) {
        for name in FILES {
            let bytes = match name {
                "oss" => self.driver(),
                _ => std::fs::read(self.directory.join(name)).unwrap(),
            };
            std::fs::write(root.join(name), bytes).unwrap();
            std::fs::set_permissions(root.join(name), PermissionsExt::from_mode(0o755)).unwrap();
        }
    }
}
