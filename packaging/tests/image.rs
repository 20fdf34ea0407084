//! The image of dist/: nothing but the two programs, small, the same each time it is made.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const MAX_BYTES: u64 = 6 * 1024 * 1024;
const PROGRAMS: [&str; 2] = ["oss", "oss-installer"];

/// An image that is taken out of its archive.
struct Image {
    directory: tempfile::TempDir,
    manifest: Value,
    config: Value,
    digest: String,
}

impl Image {
    /// The only image of the OCI archive at `path` (image-spec, image-layout.md).
    fn open(path: &Path) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        run(Command::new("tar")
            .arg("-xf")
            .arg(path)
            .arg("-C")
            .arg(directory.path()))?;
        let index = json(&directory.path().join("index.json"))?;
        let digest = text(&index["manifests"][0]["digest"])?;
        let manifest = json(&blob(directory.path(), &digest))?;
        let config = json(&blob(
            directory.path(),
            &text(&manifest["config"]["digest"])?,
        ))?;
        Ok(Self {
            directory,
            manifest,
            config,
            digest,
        })
    }

    /// Its files, below the directory that is returned.
    fn unpack(&self) -> Result<PathBuf> {
        let root = self.directory.path().join("root");
        std::fs::create_dir(&root)?;
        for layer in self.manifest["layers"].as_array().context("layers")? {
            let layer = blob(self.directory.path(), &text(&layer["digest"])?);
            run(Command::new("tar")
                .arg("-xf")
                .arg(layer)
                .arg("-C")
                .arg(&root))?;
        }
        Ok(root)
    }
}

#[test]
#[ignore = "needs root and the image in dist/: make image"]
fn nothing_but_the_two_programs() -> Result<()> {
    let archive = dist("oss-image.tar");
    let size = std::fs::metadata(&archive)
        .with_context(|| format!("look at {}: `make image` makes it", archive.display()))?
        .len();
    ensure!(
        size <= MAX_BYTES,
        "the image has {size} bytes, {MAX_BYTES} are allowed"
    );
    let image = Image::open(&archive)?;
    let root = image.unpack()?;
    let mut names: Vec<_> = std::fs::read_dir(&root)?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<std::io::Result<_>>()?;
    names.sort();
    assert_eq!(names, PROGRAMS);
    for name in PROGRAMS {
        assert_eq!(
            std::fs::read(root.join(name))?,
            std::fs::read(dist(name))?,
            "{name}"
        );
        // There is nothing that it could load.
        let word = if name == "oss" { "init" } else { "--version" };
        run(Command::new("chroot")
            .arg(&root)
            .arg(format!("/{name}"))
            .arg(word))?;
    }
    Ok(())
}

#[test]
#[ignore = "needs the image in dist/: make image"]
fn it_runs_the_installer_and_says_what_it_is() -> Result<()> {
    let image = Image::open(&dist("oss-image.tar"))?;
    let config = &image.config["config"];
    assert_eq!(config["Entrypoint"], serde_json::json!(["/oss-installer"]));
    assert_eq!(config["Cmd"], serde_json::json!(["run"]));
    assert_eq!(image.config["os"], "linux");
    let labels = &config["Labels"];
    assert_eq!(
        labels["org.opencontainers.image.version"],
        env!("CARGO_PKG_VERSION")
    );
    for label in ["title", "description", "licenses", "revision"] {
        let value = &labels[format!("org.opencontainers.image.{label}")];
        assert!(
            value.as_str().is_some_and(|text| !text.is_empty()),
            "{label}: {value}"
        );
    }
    Ok(())
}

#[test]
#[ignore = "needs root and buildah"]
fn two_builds_are_one_image() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut digests = Vec::new();
    for name in ["one.tar", "other.tar"] {
        let archive = directory.path().join(name);
        run(Command::new("make")
            .current_dir(repository())
            .args(["--no-print-directory", "image-of-dist"])
            .arg(format!("IMAGE={}", archive.display())))?;
        digests.push(Image::open(&archive)?.digest);
    }
    assert_eq!(digests[0], digests[1]);
    Ok(())
}

/// The file with this digest (`sha256:…`).
fn blob(directory: &Path, digest: &str) -> PathBuf {
    directory.join("blobs").join(digest.replace(':', "/"))
}

fn json(path: &Path) -> Result<Value> {
    let bytes = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("read {}", path.display()))
}

fn text(value: &Value) -> Result<String> {
    value
        .as_str()
        .map(str::to_owned)
        .context("a text is expected")
}

fn dist(name: &str) -> PathBuf {
    repository().join("dist").join(name)
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn run(command: &mut Command) -> Result<()> {
    let done = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {command:?}"))?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(
        done.status.success(),
        "{command:?}: {}\n{said}",
        done.status
    );
    Ok(())
}
