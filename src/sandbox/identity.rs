//! Who ossfs is: an unprivileged uid, seen as 0 inside a user namespace where the node has them, and
//! no capability (user_namespaces(7), capabilities(7)).

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_capabilities_secure_bits,
};
use std::path::PathBuf;

/// The highest number that a capability can have.
const CAPABILITIES: u32 = 64;

/// Becomes `uid`, its group of the same number alone, and nobody with a privilege. Whether it is in a
/// user namespace, where it is 0: then `map`, which asks the parent to map the ids, has been called.
pub(super) fn take(
    uid: u32,
    map: impl FnOnce() -> Result<bool>,
    left_out: &mut Vec<String>,
) -> Result<bool> {
    let namespace = unshare(CloneFlags::CLONE_NEWUSER);
    match namespace {
        Ok(()) => {
            if !map()? {
                bail!("the ids of the user namespace could not be mapped");
            }
            become_uid(0)?;
            forgo_capabilities(left_out)?;
        }
        Err(e) => {
            left_out.push(format!("no user namespace ({e})"));
            forgo_capabilities(left_out)?;
            become_uid(uid)?;
        }
    }
    let none = CapabilitySet::empty();
    let sets = CapabilitySets {
        effective: none,
        permitted: none,
        inheritable: none,
    };
    set_capabilities(None, sets).context("drop the capabilities")?;
    Ok(namespace.is_ok())
}

/// Maps 0 in the user namespace of the process `pid` to `uid` outside, as user and as group.
pub(super) fn map_ids(pid: u32, uid: u32) -> Result<()> {
    for file in ["uid_map", "gid_map"] {
        let path = PathBuf::from(format!("/proc/{pid}/{file}"));
        std::fs::write(&path, format!("0 {uid} 1\n"))
            .with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

fn become_uid(id: u32) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
    setgroups(&[]).context("drop the groups")?;
    setresgid(gid, gid, gid).with_context(|| format!("become group {id}"))?;
    setresuid(uid, uid, uid).with_context(|| format!("become user {id}"))?;
    Ok(())
}

/// Takes away what execve(2) could give back; what is in use is dropped at the end.
fn forgo_capabilities(left_out: &mut Vec<String>) -> Result<()> {
    // Kernels before 4.3 have no ambient set.
    let _ = clear_ambient_capability_set();
    for number in 0..CAPABILITIES {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match remove_capability_from_bounding_set(capability).map_err(|e| e.raw_os_error()) {
            Ok(()) => {}
            // The kernel knows no more than those before.
            Err(e) if e == Errno::EINVAL as i32 => break,
            Err(e) => {
                return Err(Errno::from_raw(e))
                    .with_context(|| format!("drop capability {number}"));
            }
        }
    }
    // User 0 of a user namespace is no exception.
    let bits = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::KEEP_CAPS_LOCKED;
    let ambient = CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    if set_capabilities_secure_bits(bits | ambient).is_err()
        && set_capabilities_secure_bits(bits).is_err()
    {
        // The empty bounding set has the same effect.
        left_out.push("no securebits".to_owned());
    }
    Ok(())
}
