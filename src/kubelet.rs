//! kubelet's contract with a FlexVolume driver (`pkg/volume/flexvolume`): calls, TARGET, responses.

pub mod call;
pub mod group;
pub mod response;
pub mod target;

/// kubelet's name for the directory of the driver `alicloud/oss`, among its plugins and in a Pod's
/// volumes (`pkg/volume/flexvolume/probe.go`: the vendor, `~`, the driver).
pub const DRIVER_DIRECTORY: &str = "alicloud~oss";
/// The driver's file in that directory.
pub const DRIVER_FILE: &str = "oss";
