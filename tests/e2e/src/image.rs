//! Container images, made here: no registry is asked.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

/// What Pods run: busybox. Its name has the registry, because the CRI looks images up by their full names.
pub(crate) const BUSYBOX: &str = "docker.io/library/e2e-busybox:1";

/// Does nothing until SIGTERM, as the first process of a container too, for which signals have no default.
pub(crate) const IDLE: [&str; 3] = ["sh", "-c", "trap exit TERM; sleep 1000000000 & wait"];

/// Names of busybox that the checks use.
const APPLETS: [&str; 22] = [
    "cat", "chmod", "cp", "date", "dd", "echo", "env", "false", "find", "grep", "id", "ls",
    "mkdir", "mv", "rm", "sh", "sleep", "stat", "sync", "touch", "true", "wc",
];

/// Writes an image of busybox, as `docker save` does, at `archive`.
pub(crate) fn busybox(archive: &Path) -> Result<()> {
    let root = tempfile::tempdir().context("make a directory")?;
    let path = |name: &str| root.path().join(name);
    for directory in ["bin", "etc", "data", "tmp"] {
        fs::create_dir(path(directory)).context("make a directory of the image")?;
    }
    fs::set_permissions(path("tmp"), fs::Permissions::from_mode(0o1777))?;
    fs::copy("/bin/busybox", path("bin/busybox"))
        .context("copy /bin/busybox (package busybox-static)")?;
    for applet in APPLETS {
        symlink("busybox", path("bin").join(applet)).context("name an applet")?;
    }
    fs::write(path("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n")?;
    fs::write(path("etc/group"), "root:x:0:\n")?;
    archive_of(root.path(), BUSYBOX, &IDLE, archive)
}

/// Writes an image of `programs`, in its root directory, as `docker save` does.
pub(crate) fn of_programs(
    programs: &[&Path],
    name: &str,
    entry: &str,
    archive: &Path,
) -> Result<()> {
    let root = tempfile::tempdir().context("make a directory")?;
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755))?;
    for program in programs {
        let file = program.file_name().context("a program has a name")?;
        fs::copy(program, root.path().join(file))
            .with_context(|| format!("copy {}", program.display()))?;
    }
    archive_of(root.path(), name, &[entry], archive)
}

fn archive_of(root: &Path, name: &str, entry: &[&str], archive: &Path) -> Result<()> {
    let parts = tempfile::tempdir().context("make a directory")?;
    let layer = parts.path().join("layer.tar");
    tar(root, &layer, ".")?;
    let digest = Sha256::digest(fs::read(&layer).context("read the layer")?);
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {"Entrypoint": entry, "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]);
    fs::write(parts.path().join("config.json"), config.to_string())?;
    fs::write(parts.path().join("manifest.json"), manifest.to_string())?;
    tar(parts.path(), archive, ".")
}

fn tar(directory: &Path, archive: &Path, what: &str) -> Result<()> {
    let output = Command::new("tar")
        .args(["--owner=0", "--group=0", "--create", "--file"])
        .arg(archive)
        .arg("--directory")
        .arg(directory)
        .arg(what)
        .output()
        .context("start tar")?;
    ensure!(
        output.status.success(),
        "tar: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
