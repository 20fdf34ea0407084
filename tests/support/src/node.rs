//! A Kubernetes node with a real systemd.
//!
//! [`Node::boot`] starts systemd-nspawn on a cached Debian or Ubuntu root (`image.rs`) with systemd as PID 1,
//! `/dev/fuse`, and the network of the host. Each node writes to memory only and disappears with its process,
//! so nodes can run at the same time and none changes the cached root.
//!
//! A test begins with `if node::skip() { return; }`: the support needs root, `/dev/fuse` and a few packages.

mod apt;
mod cgroup;
mod host;
mod image;
mod nspawn;
mod state;
mod systemd;

pub use host::{command_in, missing, skip, skip_because};
pub use image::image;
pub use systemd::{Config, Node};
