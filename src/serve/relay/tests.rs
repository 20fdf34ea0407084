//! The relay between a scripted kernel and a scripted daemon.

mod deaths;
mod hostile;
mod listings;
mod passing;
mod process;
mod waits;
mod world;
