//! The installer's image, run as the DaemonSet's Pod is: the two files of the image and nothing else
//! as its root, the manifests of `deploy` carried out by runc, with their capabilities, system calls,
//! namespaces and memory, on a node with systemd, on a host without, and on one with rpm.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]
#![allow(unreachable_pub, reason = "no other crate sees a test")]

mod bare;
mod dist;
mod full;
mod host;
mod kubelet;
mod manifest;
mod measured;
mod minimal;
mod oci;
mod packages;
mod pod;
mod seccomp;
mod volume;
