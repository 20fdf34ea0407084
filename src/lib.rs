//! What the driver, the installer, the tests and the fuzz targets share.
//!
//! Imports point downwards only: `cli` and `calls` over `service`, over `ossfs` and `state`, over
//! `request`, `options` and `config`, over `kubelet`, `mounts` and `sys`.

pub mod calls;
pub mod cli;
pub mod config;
mod credentials;
mod descriptor;
mod format;
pub mod helpers;
#[cfg(any(test, feature = "invariants"))]
pub mod invariants;
pub mod kubelet;
pub mod logging;
pub mod mounts;
mod options;
pub mod ossfs;
mod request;
pub mod sandbox;
pub mod serve;
mod service;
pub mod state;
pub mod sys;
pub mod text;
