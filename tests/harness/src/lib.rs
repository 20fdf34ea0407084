//! A node for tests, small but real: a mount namespace of its own, an object store that speaks S3
//! on loopback, s3fs in ossfs's place, and a caller of the driver that does as kubelet does.

mod container;
mod kubelet;
mod sandbox;
mod secrets;

pub use container::{Container, Propagation};
pub use kubelet::{Answer, Call, Killer, Kubelet, Status};
pub use sandbox::{Sandbox, Settings, with_sandbox, with_settings};
pub use store::{self, Fault, Store};
