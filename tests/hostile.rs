//! What a Pod author may try who may use flexVolume: every word of the options JSON is theirs, and
//! the driver runs as root. Each attack ends in a clear Failure before anything on the node has
//! changed, or in a mount that is the same as without it; never in a file, a process, a mount or a
//! key that was not asked for.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

#[path = "hostile/allowed.rs"]
mod allowed;
#[path = "hostile/harmless.rs"]
mod harmless;
#[path = "hostile/limits.rs"]
mod limits;
#[path = "hostile/planted.rs"]
mod planted;
#[path = "hostile/process.rs"]
mod process;
#[path = "hostile/recorder.rs"]
mod recorder;
#[path = "hostile/refused.rs"]
mod refused;
#[path = "hostile/shell.rs"]
mod shell;
#[path = "hostile/table.rs"]
mod table;
#[path = "hostile/target.rs"]
mod target;

const DRIVER: &str = env!("CARGO_BIN_EXE_oss");
