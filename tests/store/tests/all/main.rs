//! The store as its clients see it: over raw HTTP, and through a real file system.

mod binary;
mod buckets;
mod client;
mod faults;
mod mount;
mod objects;
mod oss;
mod s3fs;
mod uploads;
