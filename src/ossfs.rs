//! The FUSE daemon ossfs: its arguments, its start, what it says, and when it really serves.

pub(crate) mod arguments;
pub(crate) mod hung;
pub(crate) mod launch;
pub(crate) mod probe;
pub(crate) mod ready;
pub(crate) mod systemd;
pub(crate) mod words;
