//! What the driver, the installer, the tests and the fuzz targets share.

pub mod sandbox;
pub mod serve;
