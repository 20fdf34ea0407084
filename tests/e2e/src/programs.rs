//! The programs of Kubernetes, built from the module that `go.mod` beside this crate pins.

use anyhow::{Context as _, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) const PROGRAMS: [&str; 5] = [
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubectl",
    "kubelet",
];

const CRATE: &str = env!("CARGO_MANIFEST_DIR");

/// Returns the directory of the programs, and builds those that are not there.
///
/// They lie in `target/e2e/kubernetes-VERSION`. From nothing it takes some ten minutes of two processors.
pub(crate) fn build() -> Result<PathBuf> {
    let module = std::fs::read_to_string(Path::new(CRATE).join("go.mod")).context("read go.mod")?;
    let version = version(&module).context("no version of k8s.io/kubernetes in go.mod")?;
    let directory = Path::new(CRATE).join(format!("../../target/e2e/kubernetes-{version}"));
    std::fs::create_dir_all(&directory).context("make the directory of the programs")?;
    let directory = directory
        .canonicalize()
        .context("find the directory of the programs")?;
    for program in PROGRAMS {
        if !directory.join(program).exists() {
            build_one(program, version, &directory)?;
        }
    }
    Ok(directory)
}

fn build_one(program: &str, version: &str, directory: &Path) -> Result<()> {
    // What kubelet and the others say of their version; without it they say v0.0.0.
    let named = format!("-s -w -X k8s.io/component-base/version.gitVersion={version}");
    let partial = directory.join(format!(".{program}"));
    let status = Command::new("go")
        .args([
            "build",
            "-mod=readonly",
            "-trimpath",
            "-ldflags",
            &named,
            "-o",
        ])
        .arg(&partial)
        .arg(format!("k8s.io/kubernetes/cmd/{program}"))
        .current_dir(CRATE)
        .env("CGO_ENABLED", "0")
        .status()
        .context("start go, which builds the programs of Kubernetes")?;
    ensure!(status.success(), "build {program}: {status}");
    std::fs::rename(&partial, directory.join(program)).with_context(|| format!("rename {program}"))
}

fn version(module: &str) -> Option<&str> {
    module.lines().find_map(|line| {
        let mut words = line
            .split_whitespace()
            .skip_while(|word| *word == "require");
        words.next().filter(|path| *path == "k8s.io/kubernetes")?;
        words.next()
    })
}

#[test]
fn finds_the_version_in_either_form() {
    assert_eq!(
        version("require k8s.io/kubernetes v1.2.3\n"),
        Some("v1.2.3")
    );
    assert_eq!(
        version("require (\n\tk8s.io/kubernetes v1.2.3\n)\n"),
        Some("v1.2.3")
    );
    assert_eq!(version("require k8s.io/kubernetes-x v1.2.3\n"), None);
}
