//! The FUSE daemon ossfs: its arguments, its start, its output, and whether it answers.

pub(crate) mod arguments;
pub(crate) mod dbus;
pub(crate) mod diagnosis;
pub mod launch;
pub(crate) mod probe;
pub(crate) mod systemd;
pub mod unit_files;
