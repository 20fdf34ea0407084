//! A volume as a whole: have it served by a daemon, release one of its targets, remove it with the
//! last one, and clean up after calls that were killed.

pub(crate) mod ensure;
pub(crate) mod release;
pub(crate) mod sweep;
