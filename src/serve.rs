//! The process of a volume: it keeps the FUSE connection, and ossfs runs behind a relay in it.

pub mod relay;
