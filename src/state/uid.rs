//! The user on the node that a volume's ossfs runs as: one of its own, so that no volume can touch
//! what another's ossfs owns.

use crate::state::directory::StateDirectory;
use crate::state::volume::Volume;
use crate::sys::deadline::Deadline;
use anyhow::{Context as _, Result};
use std::collections::BTreeSet;

/// The first of the users: the one after the last that systemd gives to containers ("Users, Groups,
/// UIDs and GIDs on systemd Systems").
pub(crate) const FIRST: u32 = 0x7000_0000;
/// How many users there are.
pub(crate) const COUNT: u32 = 0x1_0000;

/// The user of `volume`, whose lock is held: the one that it has already, or one that no other volume
/// of this node has, which is recorded. An error if all are taken, or another call has been giving one
/// out until `deadline`.
pub(crate) fn allocate(state: &StateDirectory, volume: &Volume, deadline: Deadline) -> Result<u32> {
    if let Some(uid) = volume.uid()? {
        return Ok(uid);
    }
    let _lock = state.lock_uids(deadline)?;
    let mut taken = BTreeSet::new();
    for other in state.all()? {
        taken.extend(other.uid()?);
    }
    let uid = choose(volume.id(), &taken).with_context(|| {
        format!("all {COUNT} user ids for volumes, from {FIRST} on, are in use")
    })?;
    volume.record_uid(uid)?;
    Ok(uid)
}

/// A user that is not `taken`. The search starts at one that depends on the volume: an ossfs that is
/// still uploading for a volume that was removed seldom shares its user with a new volume.
fn choose(id: &str, taken: &BTreeSet<u32>) -> Option<u32> {
    let digits = id.get(..4).unwrap_or_default();
    let start = u32::from_str_radix(digits, 16).unwrap_or(0) % COUNT;
    (0..COUNT)
        .map(|step| FIRST + (start + step) % COUNT)
        .find(|uid| !taken.contains(uid))
}

#[cfg(test)]
mod tests {
    use super::{COUNT, FIRST, choose};
    use std::collections::BTreeSet;

    #[test]
    fn no_user_is_given_twice() {
        let none = BTreeSet::new();
        assert_eq!(choose("0000aa", &none), Some(FIRST));
        assert_eq!(choose("0010aa", &none), Some(FIRST + 16));
        let taken = BTreeSet::from([FIRST + COUNT - 1, FIRST, FIRST + 1]);
        assert_eq!(choose("ffffaa", &taken), Some(FIRST + 2));
        let all = (FIRST..FIRST + COUNT).collect();
        assert_eq!(choose("ffffaa", &all), None);
    }

    #[test]
    fn the_range_is_outside_of_what_systemd_gives_to_containers() {
        assert_eq!(FIRST, 1_879_048_191 + 1);
        const { assert!(FIRST + COUNT < 1 << 31) };
    }
}
