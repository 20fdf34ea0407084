//! A volume as a whole: have it served by a daemon, release one of its targets, remove it with the
//! last one, and clean up after calls that were killed.

pub(crate) mod directories;
pub(crate) mod ensure;
pub(crate) mod kubelet_root;
mod mount_options;
pub(crate) mod plan;
pub(crate) mod release;
pub(crate) mod sweep;
pub(crate) mod targets;
