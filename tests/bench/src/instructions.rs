//! Instruction counts of calls, by valgrind's callgrind: they repeat where seconds do not, so a
//! baseline of them can be kept in the repository. Environment, paths and file names are always the
//! same, for their lengths count, and of the machine's mounts only those are there that are needed:
//! the driver reads the mount table.
//!
//! What a child process does is not in its parent's count, and none can be started: `/proc/self/exe` is
//! valgrind under valgrind, which ends with an error where a helper process is wanted. So the probe is
//! counted as a call of its own, under the helper's name and with its input (`src/sys/helper.rs`), and
//! the mount of what is mounted already up to the error of its probe, which it undoes and reports.

use crate::namespace;
use crate::node::{CONFIG, CONFIG_VARIABLE, INSTALLED, KUBELET, Node, ROOT, SUCCESS};
use crate::options::Options;
use crate::report;
use crate::run;
use crate::store::Store;
use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use support::namespace::MountNamespace;

/// How far above the baseline a count may be, in percent.
const TOLERANCE: f64 = 5.0;
const FILE: &str = "instructions.json";
/// Always the same place, whatever directory it was built in.
const DRIVER: &str = "/mnt/driver/oss";
const PROBE: &str = "/mnt/driver/oss-probe";

/// The kept counts.
#[derive(Debug, Serialize, Deserialize)]
struct Baseline {
    /// What counted.
    valgrind: String,
    /// What the driver was built with.
    compiler: String,
    counts: BTreeMap<String, u64>,
}

/// Counts, and fails if a count is more than `TOLERANCE` above the kept one.
pub(crate) fn check(options: &Options) -> Result<ExitCode> {
    let text = std::fs::read_to_string(report::file(FILE)).context("read instructions.json")?;
    let kept: Baseline = serde_json::from_str(&text).context("read instructions.json")?;
    let found = count(options)?;
    for (found, kept) in [
        (&found.valgrind, &kept.valgrind),
        (&found.compiler, &kept.compiler),
    ] {
        if found != kept {
            println!("{found} here; the baseline is by {kept}");
        }
    }
    let mut failed = false;
    for (name, count) in &found.counts {
        let before = kept.counts.get(name).with_context(|| {
            format!("{FILE} has no count of {name:?}: run with --update-instructions")
        })?;
        let change = (*count as f64 / *before as f64 - 1.0) * 100.0;
        let verdict = match change {
            change if change > TOLERANCE => "MORE than 5 % above the baseline",
            change if change < -TOLERANCE => "less: --update-instructions keeps the gain",
            _ => "as before",
        };
        failed |= change > TOLERANCE;
        println!("{name}: {count} instructions, {change:+.2} %: {verdict}");
    }
    Ok(match failed {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}

/// Counts, and keeps the counts as the baseline.
pub(crate) fn update(options: &Options) -> Result<ExitCode> {
    let found = count(options)?;
    let mut text = serde_json::to_string_pretty(&found).context("write instructions.json")?;
    text.push('\n');
    std::fs::write(report::file(FILE), &text).context("write instructions.json")?;
    print!("{text}");
    Ok(ExitCode::SUCCESS)
}

fn count(options: &Options) -> Result<Baseline> {
    let base = MountNamespace::current()?;
    let store = Store::start(&options.store, &[])?;
    let node = Node::new(&base, &options.driver, &store.url, 0)?;
    std::fs::create_dir("/mnt/driver").context("make a directory")?;
    for copy in [DRIVER, PROBE] {
        std::fs::copy(&options.driver, copy).context("copy the driver")?;
    }
    namespace::leave_only(&["/", "/proc", "/dev", "/usr", ROOT, KUBELET, INSTALLED])?;
    let refused = node.make_target(1)?;
    let mounted = node.make_target(2)?;
    let bad = node.options(0, json!({"otherOpts": "-o credential_process=/bin/true"}));
    let good = node.options(0, json!({})).to_string();
    node.mount(2, 0)?;
    let probe = json!({"directory": mounted}).to_string();
    let mut counts = BTreeMap::new();
    for (name, program, arguments, answer) in [
        ("init", DRIVER, vec!["init"], "\"status\":\"Success\""),
        (
            "mount with an option that is refused",
            DRIVER,
            vec!["mount", &refused, &bad.to_string()],
            "is not allowed",
        ),
        (
            "mount of what is mounted already, but for its probe",
            DRIVER,
            vec!["mount", &mounted, &good],
            "the helper oss-probe ended with",
        ),
        ("the probe", PROBE, vec![probe.as_str()], "\"Served\""),
    ] {
        // Else the mount of what is mounted already does without a probe, if it comes soon enough.
        node.let_probe_pass()?;
        let count = callgrind(program, &arguments, answer)
            .with_context(|| format!("count the instructions of {name}"))?;
        counts.insert(name.to_owned(), count);
    }
    // As a check that it was mounted, and healthy, all the time.
    let answer = run::run(
        Path::new(DRIVER),
        &["mount", &mounted, &good],
        &[(CONFIG_VARIABLE, CONFIG)],
    )?;
    ensure!(answer.words == SUCCESS, "{}", answer.words);
    base.enter()?;
    Ok(Baseline {
        valgrind: report::output("valgrind", &["--version"]),
        compiler: report::output("rustc", &["--version"]),
        counts,
    })
}

/// The number of instructions that `program` executes; its answer must hold `expected`.
fn callgrind(program: &str, arguments: &[&str], expected: &str) -> Result<u64> {
    let mut words = vec![
        "--tool=callgrind",
        "--trace-children=no",
        "--callgrind-out-file=/dev/null",
        program,
    ];
    words.extend(arguments);
    let environment = [(CONFIG_VARIABLE, CONFIG)];
    let run = run::run(Path::new("/usr/bin/valgrind"), &words, &environment)
        .context("run valgrind: is it installed?")?;
    ensure!(run.words.contains(expected), "the answer: {}", run.words);
    run.words
        .lines()
        .find_map(|line| line.split_once("Collected : "))
        .and_then(|(_, count)| count.trim().parse().ok())
        .context("callgrind has printed no count")
}
