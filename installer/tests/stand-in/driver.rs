//! A driver for tests. What it answers and which build it is follow its own program, as
//! `\nSTAND-IN {json}`: so each driver is another file, as real builds are.

use serde_json::{Value, json};
use std::fs::{read, read_link, read_to_string, rename, write};
use std::io::Write as _;
use std::os::unix::process::parent_id;
use std::path::Path;
use std::time::SystemTime;

fn main() {
    let program = read("/proc/self/exe")
        .or_else(|_| read(std::env::args().next().expect("a name")))
        .expect("read the own program");
    let marker = b"\nSTAND-IN ";
    let at = program
        .windows(marker.len())
        .rposition(|window| window == marker)
        .expect("the marker");
    let own: Value = serde_json::from_slice(&program[at + marker.len()..]).expect("JSON");
    let call = std::env::args().nth(1).unwrap_or_default();
    let answer = match (call.as_str(), own["answer"].as_str()) {
        ("init", Some("nothing")) => return,
        ("init", Some("no capabilities")) => json!({"status": "Success"}),
        ("init", Some("failure")) => json!({"status": "Failure", "message": "broken"}),
        ("init", _) => {
            write_record(&own);
            json!({"status": "Success", "capabilities": {"attach": false,
                "selinuxRelabel": false, "supportsMetrics": false, "fsGroup": false,
                "requiresFSResize": false}})
        }
        ("--version", Some("no capabilities")) => json!({"status": "Not supported"}),
        ("--version", _) => json!(build(&own)),
        _ => json!({"status": "Not supported"}),
    };
    let text = answer
        .as_str()
        .map_or_else(|| answer.to_string(), str::to_owned);
    writeln!(std::io::stdout(), "{text}").expect("answer");
}

/// What `--version` says, as the driver's does.
fn build(own: &Value) -> String {
    format!("oss {}", own["build"].as_str().unwrap_or_default())
}

/// Leaves the init record, as the driver does: not while an installer tries it out.
fn write_record(own: &Value) {
    let exe = read_link("/proc/self/exe").expect("the own path");
    if !exe.ends_with("alicloud~oss/oss") {
        return;
    }
    let Some(state) = own["state"].as_str().map(Path::new) else {
        return;
    };
    let pid = parent_id();
    // A caller in another pid namespace has no number here.
    let caller = read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let time = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("a time")
        .as_secs();
    let record = json!({"build": build(own), "pid": pid, "caller": caller.trim(), "time": time});
    let new = state.join(format!(".init.{}", std::process::id()));
    write(&new, record.to_string()).unwrap_or_else(|e| panic!("record of {}: {e}", exe.display()));
    rename(&new, state.join("init.json")).expect("rename the record");
}
