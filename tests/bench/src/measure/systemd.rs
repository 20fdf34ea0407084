//! Mounts under systemd next to the bare command, and kills of what serves a volume: on a node with a
//! real systemd (tests/support), by this program as one of its services.

use super::{Bench, deaths};
use crate::agent::{DRIVER, Measured, PROGRAM, Task, WORD};
use crate::report::Results;
use crate::row::{Row, Unit};
use crate::stats::Samples;
use anyhow::{Context as _, Result, ensure};
use std::path::Path;
use support::node::{self, Config, Node};

/// How long all of it may take at most, in seconds: a container that never has an answer ends it.
const RUNTIME: &str = "--property=RuntimeMaxSec=1800";

pub(super) fn rows(bench: &Bench<'_>, _: &mut Results) -> Result<Vec<Row>> {
    let missing = node::missing();
    ensure!(
        !bench.options.write || missing.is_empty(),
        "nothing may be missing from what is kept: {}",
        missing.join("; ")
    );
    if node::skip() {
        return Ok(Vec::new());
    }
    let task = Task {
        url: bench.store.url.clone(),
        mounts: bench.rounds(40, 3),
        kills: deaths::plan(bench),
    };
    let measured = measure(&bench.options.driver, &task)?;
    let next_to = |name, driver: &Samples, bare, beside: &Samples, limit| {
        let beside = (bare, beside.summary());
        Row::ratio(name, Unit::Milliseconds, driver.summary(), beside, limit)
    };
    let mut rows = vec![
        next_to(
            "mount, under systemd",
            &measured.mount,
            "`s3fs` and a lookup",
            &measured.bare_mount,
            2.0,
        ),
        next_to(
            "unmount, last user, under systemd",
            &measured.unmount,
            "`umount` and the daemon's end",
            &measured.bare_unmount,
            1.5,
        ),
    ];
    rows.extend(deaths::rows_of(measured.deaths, " under systemd"));
    Ok(rows)
}

fn measure(driver: &Path, task: &Task) -> Result<Measured> {
    let program = std::env::current_exe().context("find this program")?;
    let config = Config::new()
        .bind_read_only(program, PROGRAM)
        .bind_read_only(driver, DRIVER);
    let node = Node::boot(config)?;
    let task = serde_json::to_string(task)?;
    let options = ["--wait", "--pipe", RUNTIME];
    let words = node.systemd_run("bench", &options, &[PROGRAM, WORD, &task])?;
    serde_json::from_str(&words).context("read what was measured on the node")
}
