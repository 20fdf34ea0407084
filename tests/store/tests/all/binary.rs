//! The store as a process of its own.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::client::Client;

const STORE: &str = env!("CARGO_BIN_EXE_s3-store");

/// A client of the store `child`, at the address that it prints.
fn client_of(child: &mut Child) -> Client {
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let address = line.trim_end().strip_prefix("http://").unwrap();
    Client::at(address.parse().unwrap(), "ID", "secret")
}

#[test]
fn serves_until_it_is_told_to_end() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut child = Command::new(STORE)
            .args([
                "--bucket",
                "one",
                "--bucket",
                "two",
                "--key",
                "ID:secret",
                "--log",
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let client = client_of(&mut child);
        assert_eq!(client.put("/two/file", b"hello").status, 200);
        assert_eq!(client.get("/two/file").body, b"hello");
        assert_eq!(client.head("/one/file").status, 404);

        kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
        let mut log = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut log)
            .unwrap();
        assert_eq!(
            log,
            "PUT /two/file ID 200\nGET /two/file ID 200\nHEAD /one/file ID 404\n"
        );
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn has_objects_and_takes_its_time_where_it_is_told_to() {
    let mut child = Command::new(STORE)
        .args(["--bucket", "one", "--key", "ID:secret"])
        .args(["--objects", "one:3", "--delay", "20"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let client = client_of(&mut child);
    let since = Instant::now();
    assert_eq!(client.get("/one/object-000002").body, b"content");
    assert!(since.elapsed() >= Duration::from_millis(20));
    assert_eq!(client.head("/one/object-000003").status, 404);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn says_what_is_wrong_with_its_arguments() {
    for (arguments, text) in [
        (
            ["--bucket", "one"].as_slice(),
            "at least one bucket and one key",
        ),
        (&["--bucket"], "--bucket needs a value"),
        (&["--key", "ID"], "--key needs ID:SECRET"),
        (&["--listen", "nowhere"], "not an address: nowhere"),
        (&["--delay", "soon"], "not a number of milliseconds: soon"),
        (&["--objects", "one:2"], "--objects needs NAME:COUNT"),
        (&["--what"], "unknown argument: --what"),
    ] {
        let output = Command::new(STORE).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(
            stderr.contains(text) && stderr.contains("usage: s3-store"),
            "{stderr}"
        );
    }
}
