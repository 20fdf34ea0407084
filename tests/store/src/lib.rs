//! An S3 and OSS server for tests and demonstrations, on loopback and in memory.
//!
//! It speaks the real protocols, each client's own by its signature, and verifies the signatures,
//! so that a real client on a real mount can be run against it. Tests reach around the protocol: they look at what is stored, at the record
//! of requests, and inject [faults](Fault).
//!
//! ```
//! let store = store::Store::start();
//! store.add_key("ID", "secret");
//! store.create_bucket("bucket");
//! store.put("bucket", "directory/file", "contents");
//! assert_eq!(store.keys("bucket"), ["directory/file"]);
//! assert!(store.url().starts_with("http://127.0.0.1:"));
//! ```

mod access;
mod address;
mod body;
mod dead;
mod faults;
mod list;
mod listing;
mod lookup;
mod mounter;
mod objects;
mod oss;
mod record;
mod s3;
mod server;
mod store;
mod uploads;

pub use dead::{DeadEnd, refusing_server, silent_server};
pub use faults::{Fault, FaultId, GARBAGE, Rule};
pub use mounter::{Mounter, PATH_STYLE, mounter};
pub use record::{RECORDED, Request};
pub use store::{Info, Store};
