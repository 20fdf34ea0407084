//! Mounts of the node: reading the mount table, and changing it.

pub(crate) mod bind;
pub(crate) mod directory;
pub(crate) mod line;
pub mod links;
pub mod reader;
pub mod table;
pub(crate) mod unmount;
