//! What the driver remembers on the node beyond one call.

pub(crate) mod directory;
pub(crate) mod identity;
pub mod init_record;
pub mod layout;
pub(crate) mod start;
pub(crate) mod uid;
pub(crate) mod volume;
