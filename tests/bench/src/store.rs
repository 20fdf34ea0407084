//! The object store: the program of tests/store, as a process of its own.

use anyhow::{Context as _, Result};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The key pair that everything here uses.
pub(crate) const KEY_ID: &str = "LTAIbench";
pub(crate) const SECRET: &str = "bench-secret";
/// How many buckets there are, of the names that `bucket` gives.
const BUCKETS: usize = 50;

/// The name of a bucket.
pub(crate) fn bucket(number: usize) -> String {
    format!("bench-{number:02}")
}

/// A running store; it ends with this value.
pub(crate) struct Store {
    child: Child,
    pub(crate) url: String,
}

impl Store {
    /// Starts `program` on a free port, with `more` arguments.
    pub(crate) fn start(program: &Path, more: &[&str]) -> Result<Self> {
        let mut command = Command::new(program);
        for number in 0..BUCKETS {
            command.arg("--bucket").arg(bucket(number));
        }
        let mut child = command
            .args(["--key", &format!("{KEY_ID}:{SECRET}")])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("start the store")?;
        let mut url = String::new();
        let words = child.stdout.take().context("the store has no stdout")?;
        BufReader::new(words)
            .read_line(&mut url)
            .context("read the store's url")?;
        Ok(Self {
            child,
            url: url.trim().to_owned(),
        })
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // Gone already, at worst; and it goes with process 1 anyway.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
