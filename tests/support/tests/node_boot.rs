//! What a node is: a system of its own with systemd, FUSE, the network of the host, and nothing that lasts.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use support::node::{self, Config, Node};

#[test]
fn boots_systemd_as_pid_1() -> Result<()> {
    if node::skip() {
        return Ok(());
    }
    let node = Node::boot(Config::new().hostname("worker-1"))?;
    assert_eq!(node.run(&["cat", "/proc/1/comm"])?, "systemd\n");
    assert_eq!(node.systemctl(&["is-system-running"])?, "running\n");
    assert_eq!(node.run(&["hostname"])?, "worker-1\n");
    let comm = fs::read_to_string(format!("/proc/{}/comm", node.pid1()))?;
    assert_eq!(comm, "systemd\n");
    Ok(())
}

#[test]
fn mounts_fuse_inside_only() -> Result<()> {
    if node::skip() {
        return Ok(());
    }
    let node = Node::boot(Config::new())?;
    assert!(
        node.run(&["s3fs", "--version"])?
            .contains("Simple Storage Service")
    );

    // A mount without a daemon that answers is enough to see that the kernel allows it.
    let script = "mkdir -p /mnt/fuse && exec 3<>/dev/fuse && \
        mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 none /mnt/fuse && \
        grep /mnt/fuse /proc/mounts && umount --lazy /mnt/fuse && ! grep /mnt/fuse /proc/mounts";
    let mounts = node.systemd_run("fuse", &["--wait", "--pipe"], &["bash", "-c", script])?;
    assert!(mounts.contains(" fuse "), "{mounts}");
    Ok(())
}

#[test]
fn has_mount_namespaces_with_propagation() -> Result<()> {
    if node::skip() {
        return Ok(());
    }
    let node = Node::boot(Config::new())?;
    let script = "set -e; mkdir /a /b; echo 1 > /a/f; unshare --mount --propagation private \
        bash -c 'mount --bind /a /b; nsenter --mount=/proc/1/ns/mnt ls /b; cat /b/f'";
    assert_eq!(
        node.systemd_run("ns", &["--wait", "--pipe"], &["bash", "-c", script])?,
        "1\n"
    );

    // PID 1 sees what a service mounts, a service that does not ask for privacy is in the same namespace.
    node.systemd_run("bind", &["--wait"], &["mount", "--bind", "/a", "/b"])?;
    assert_eq!(node.run(&["cat", "/b/f"])?, "1\n");
    assert_eq!(
        node.run(&["findmnt", "--noheadings", "--output=PROPAGATION", "/b"])?,
        "shared\n"
    );
    let host = fs::read_to_string("/proc/self/mounts")?;
    assert!(
        host.lines()
            .all(|line| line.split(' ').nth(1) != Some("/b"))
    );
    Ok(())
}

#[test]
fn command_has_streams_status_and_an_empty_environment() -> Result<()> {
    if node::skip() {
        return Ok(());
    }
    let node = Node::boot(Config::new())?;
    let mut child = node
        .command("tr")
        .args(["a-z", "A-Z"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("stdin")?.write_all(b"text")?;
    assert_eq!(child.wait_with_output()?.stdout, b"TEXT");
    assert_eq!(
        node.command("bash").args(["-c", "exit 7"]).status()?.code(),
        Some(7)
    );
    let environment = node.command("env").env("ONE", "1").output()?.stdout;
    let environment = String::from_utf8(environment)?;
    let names: Vec<_> = environment
        .lines()
        .filter_map(|line| line.split('=').next())
        .collect();
    assert_eq!(names.len(), 2, "{environment}");
    assert!(
        names.contains(&"PATH") && names.contains(&"ONE"),
        "{environment}"
    );
    assert!(
        node.run(&["bash", "-c", "echo why >&2; false"])
            .is_err_and(|error| error.to_string().contains("why"))
    );
    Ok(())
}

#[test]
fn killing_a_command_kills_the_program() -> Result<()> {
    if node::skip() {
        return Ok(());
    }
    let node = Node::boot(Config::new())?;
    let mut child = node
        .command("bash")
        .args(["-c", "echo started; exec sleep 60"])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut output = BufReader::new(child.stdout.take().context("stdout")?);
    output.read_line(&mut String::new())?;
    child.kill()?;
    child.wait()?;
    let killed = Instant::now();
    // The stream ends with its last writer, which is the program.
    output.read_to_end(&mut Vec::new())?;
    assert!(killed.elapsed() < Duration::from_secs(30));
    Ok(())
}

#[test]
fn shares_directories() -> Result<()> {
    if node::skip() {
        return Ok(());
    }
    let shared = tempfile::tempdir()?;
    let fixed = tempfile::Builder::new().prefix("with:colon").tempdir()?;
    fs::write(fixed.path().join("file"), "from the host")?;
    let node = Node::boot(
        Config::new()
            .bind(shared.path(), "/exchange")
            .bind_read_only(fixed.path(), "/opt/driver"),
    )?;
    assert_eq!(node.run(&["cat", "/opt/driver/file"])?, "from the host");
    assert!(node.run(&["touch", "/opt/driver/other"]).is_err());
    node.run(&["bash", "-c", "echo -n inside > /exchange/file"])?;
    assert_eq!(fs::read_to_string(shared.path().join("file"))?, "inside");
    Ok(())
}

#[test]
fn reaches_servers_of_the_test() -> Result<()> {
    if node::skip() {
        return Ok(());
    }
    let node = Node::boot(Config::new())?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let script = format!("cat < /dev/tcp/127.0.0.1/{}", listener.local_addr()?.port());
    let server = thread::spawn(move || listener.accept()?.0.write_all(b"hello"));
    assert_eq!(
        node.systemd_run("client", &["--wait", "--pipe"], &["bash", "-c", &script])?,
        "hello"
    );
    server.join().expect("the server does not panic")?;
    Ok(())
}

#[test]
fn nodes_share_nothing() -> Result<()> {
    if node::skip() {
        return Ok(());
    }
    let one = Node::boot(Config::new())?;
    let two = thread::spawn(|| Node::boot(Config::new()))
        .join()
        .expect("boot does not panic")?;
    one.run(&["touch", "/etc/mark"])?;
    assert!(one.path("/etc/mark").exists());
    assert!(!two.path("/etc/mark").exists());
    assert!(!node::image()?.join("etc/mark").exists());
    one.power_off()?;
    assert_eq!(two.systemctl(&["is-system-running"])?, "running\n");
    Ok(())
}
