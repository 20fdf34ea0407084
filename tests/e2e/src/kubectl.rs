//! The API, through kubectl.

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::io::Write as _;
use std::process::{Command, Stdio};
use support::node::Node;

pub(crate) const KUBECONFIG: &str = "/etc/kubernetes/admin.conf";

/// Prepares a call of kubectl on the node.
pub(crate) fn command(node: &Node, arguments: &[&str]) -> Command {
    let mut command = node.command("/opt/kubernetes/kubectl");
    command
        .args(arguments)
        .env("KUBECONFIG", KUBECONFIG)
        .env("HOME", "/root");
    command
}

/// Calls kubectl and returns its standard output.
///
/// # Errors
/// If it does not succeed; the message has its standard error.
pub(crate) fn run(node: &Node, arguments: &[&str]) -> Result<String> {
    run_with(node, arguments, "")
}

/// [`run`], with something on its standard input.
pub(crate) fn run_with(node: &Node, arguments: &[&str], input: &str) -> Result<String> {
    let mut child = command(node, arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("start kubectl")?;
    let mut stdin = child.stdin.take().context("the input of kubectl")?;
    stdin
        .write_all(input.as_bytes())
        .context("write to kubectl")?;
    drop(stdin);
    let output = child.wait_with_output().context("wait for kubectl")?;
    if !output.status.success() {
        bail!(
            "kubectl {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `kubectl get … -o json`.
pub(crate) fn get(node: &Node, arguments: &[&str]) -> Result<Value> {
    let text = run(node, &[&["get", "-o", "json"], arguments].concat())?;
    serde_json::from_str(&text).context("read the answer of kubectl")
}
