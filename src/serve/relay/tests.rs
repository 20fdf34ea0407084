//! The relay between a scripted kernel and a scripted daemon.

mod deaths;
mod holder;
mod hostile;
mod listings;
mod passing;
mod process;
mod successor;
mod traffic;
mod waits;
mod world;
