//! What a Pod author may try who may use flexVolume: every word of the options JSON is theirs, and
//! the driver runs as root. Each attack ends in a clear Failure before anything on the node has
//! changed, or in a mount that is the same as without it; never in a file, a process, a mount or a
//! key that was not asked for.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod allowed;
mod harmless;
mod limits;
mod planted;
mod process;
mod recorder;
mod refused;
mod shell;
mod table;
mod target;

const DRIVER: &str = env!("CARGO_BIN_EXE_oss");
