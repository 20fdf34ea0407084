//! The FUSE daemon ossfs: its arguments, its start, its output, and when it really serves.

pub(crate) mod arguments;
pub(crate) mod diagnosis;
pub(crate) mod hung;
pub(crate) mod launch;
pub(crate) mod probe;
pub(crate) mod readiness;
pub(crate) mod systemd;
