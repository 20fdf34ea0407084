//! The installer with the real driver, under a kubelet that watches and with volumes that are really
//! mounted: installing, changing builds, removing.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod builds;
mod leftovers;
mod readers;
mod removal;
mod systemd;
mod world;
