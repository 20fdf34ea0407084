//! Support for tests. Three kinds of node, from the least to the most real:
//!
//! - [`TestHost`]: a host in a temporary directory, for the installer; nothing is mounted.
//! - [`Sandbox`]: a mount namespace of its own, an object store on loopback, ossfs or s3fs
//!   in its place, and a caller of the driver that does as kubelet does.
//! - [`node::Node`]: a container with its own systemd; [`Cluster`] has the driver on it.

mod cluster;
mod container;
mod driver_watcher;
mod kubelet;
mod mount_table;
pub mod namespace;
pub mod node;
mod process;
mod programs;
mod ptrace;
mod sandbox;
mod secrets;
mod serving;
mod test_host;

pub use cluster::Cluster;
pub use container::{Container, ContainerOptions, Propagation};
pub use driver_watcher::{DriverWatcher, fingerprint};
pub use kubelet::{Answer, Call, Killer, Kubelet, Status, volume_options};
pub use mount_table::{Mount, OWN_TABLE};
pub use process::{EndOnDrop, PATIENCE, Pidfd, Process, Stream, kernel_sends_again, wait_until};
pub use programs::{beside, copy_program, example, finish, installer};
pub use ptrace::kill_after;
pub use sandbox::{Sandbox, Settings, with_sandbox, with_settings};
pub use store::{self, Fault, Store, mounter};
pub use test_host::{DRIVER, TestHost};
