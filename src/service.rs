//! A volume as a whole: have it served by a daemon, give up one of its targets, remove it after its
//! last user, and clean up after calls that were killed.

pub(crate) mod ensure;
pub(crate) mod release;
pub(crate) mod sweep;
