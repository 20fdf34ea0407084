//! The driver's parsers with what holds for them, one function for each fuzz target.

use alicloud_oss::invariants;

/// The options JSON of a mount call, after a byte that chooses the node configuration.
pub fn options_json(data: &[u8]) {
    if let Some((first, json)) = data.split_first()
        && let Ok(json) = std::str::from_utf8(json)
    {
        invariants::check_mount(*first, json);
    }
}

/// The text of `otherOpts`: alone, and in a volume that is right otherwise.
pub fn other_opts(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        invariants::check_other_opts(text);
        invariants::check_volume_with(text);
    }
}

/// The text of `/proc/self/mountinfo`.
pub fn mountinfo(data: &[u8]) {
    invariants::check_mountinfo(&String::from_utf8_lossy(data));
}

/// The node configuration.
pub fn config(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        invariants::check_config(text);
    }
}

/// The traffic of the relay: a kernel's requests, a hostile daemon's answers, and deaths.
pub fn relay(data: &[u8]) {
    invariants::check_traffic(data);
}
