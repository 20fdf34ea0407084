//! What the driver needs of systemd on a node: lifetimes by control group, restarts, limits.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use support::node::{self, Config, Node};

const TIMEOUT: Duration = Duration::from_secs(30);

/// Starts one child that stays in the group of the service and one in a scope outside, and tells their ids.
const KUBELET: &str = r#"[Service]
ExecStart=/bin/bash -c '\
  test -e /run/restarted && exec sleep infinity; touch /run/restarted; \
  sleep infinity & echo inner=$!; \
  systemd-run --scope --slice=alicloud-oss.slice --unit=oss-mount \
    /bin/bash -c "echo outer=\\$$\\$$; exec sleep infinity" & \
  wait'
"#;

fn number(message: &str) -> Result<u32> {
    message
        .split_once('=')
        .and_then(|(_, value)| value.parse().ok())
        .with_context(|| format!("no number: {message}"))
}

#[test]
fn scope_survives_a_restart_of_kubelet() -> Result<()> {
    if node::skip() {
        return Ok(());
    }
    let node = Node::boot(Config::new())?;
    let process = |pid: u32| node.path("/proc").join(pid.to_string());
    node.write_unit("kubelet.service", KUBELET)?;
    node.systemctl(&["start", "kubelet"])?;
    let inner =
        number(&node.wait_for_journal("kubelet", TIMEOUT, |line| line.starts_with("inner="))?)?;
    let outer = number(&node.wait_for_journal("oss-mount.scope", TIMEOUT, |line| {
        line.starts_with("outer=")
    })?)?;
    let kubelet = node.property("kubelet", "MainPID")?;
    assert!(process(inner).exists());
    let group = fs::read_to_string(process(outer).join("cgroup"))?;
    assert!(
        group.contains("/alicloud.slice/alicloud-oss.slice/oss-mount.scope"),
        "{group}"
    );

    node.systemctl(&["restart", "kubelet"])?;

    assert_ne!(node.property("kubelet", "MainPID")?, kubelet);
    assert!(
        !process(inner).exists(),
        "a child in the group of kubelet ends with it"
    );
    assert_eq!(fs::read_to_string(process(outer).join("comm"))?, "sleep\n");
    assert_eq!(node.property("oss-mount.scope", "ActiveState")?, "active");
    Ok(())
}

#[test]
fn template_unit_restarts_a_killed_process() -> Result<()> {
    if node::skip() {
        return Ok(());
    }
    let node = Node::boot(Config::new())?;
    let unit = "[Service]\nRestart=on-failure\nExecStart=/bin/bash -c 'echo %i=$$$$; exec sleep infinity'\n";
    node.write_unit("oss-mount@.service", unit)?;
    node.systemctl(&["start", "oss-mount@volume"])?;
    let first = node.wait_for_journal("oss-mount@volume", TIMEOUT, |line| {
        line.starts_with("volume=")
    })?;
    assert_eq!(
        node.property("oss-mount@volume", "MainPID")?,
        number(&first)?.to_string()
    );

    node.run(&["kill", "-KILL", &number(&first)?.to_string()])?;

    let second = node.wait_for_journal("oss-mount@volume", TIMEOUT, |line| {
        line.starts_with("volume=") && line != first
    })?;
    assert_eq!(
        node.property("oss-mount@volume", "MainPID")?,
        number(&second)?.to_string()
    );
    assert_eq!(node.property("oss-mount@volume", "NRestarts")?, "1");
    assert!(node.journal("oss-mount@volume")?.contains("status=9/KILL"));
    Ok(())
}

#[test]
fn memory_limit_of_a_drop_in_is_enforced() -> Result<()> {
    if node::skip() {
        return Ok(());
    }
    let node = Node::boot(Config::new())?;
    if !has_memory_controller(&node) {
        node::skip_because("the memory controller is not available to the node");
        return Ok(());
    }
    node.write_unit(
        "hog.service",
        "[Service]\nType=oneshot\nExecStart=/bin/dd if=/dev/zero of=/dev/null bs=128M count=1\n",
    )?;
    node.systemctl(&["start", "hog"])?;

    node.write_unit(
        "hog.service.d/memory.conf",
        "[Service]\nMemoryMax=32M\nMemorySwapMax=0\n",
    )?;

    assert!(node.systemctl(&["start", "hog"]).is_err());
    let result = node.property("hog", "Result")?;
    assert!(
        ["signal", "oom-kill"].contains(&result.as_str()),
        "{result}"
    );
    Ok(())
}

fn has_memory_controller(node: &Node) -> bool {
    let unified =
        fs::read_to_string(node.path("/sys/fs/cgroup/cgroup.controllers")).unwrap_or_default();
    unified
        .split_whitespace()
        .any(|controller| controller == "memory")
        || node
            .path("/sys/fs/cgroup/memory/memory.limit_in_bytes")
            .exists()
}

#[test]
fn waiting_for_the_journal_has_an_end() -> Result<()> {
    if node::skip() {
        return Ok(());
    }
    let node = Node::boot(Config::new())?;
    let start = Instant::now();
    let waited = node.wait_for_journal("none", Duration::from_millis(300), |_| true);
    assert!(waited.is_err() && start.elapsed() < TIMEOUT);
    Ok(())
}
