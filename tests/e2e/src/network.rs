//! The store, inside the node's network and yet in the hands of the checks.

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, setns};
use std::net::SocketAddr;
use support::Store;
use support::node::Node;

/// The node's address: kubelet does not take one of loopback.
pub(crate) const ADDRESS: &str = "10.88.0.1";

/// Gives the node an interface with an address and a default route, of which kubelet takes its own.
pub(crate) fn set_up(node: &Node) -> Result<()> {
    let commands = [
        "link add eth0 type veth peer name eth1",
        "addr add 10.88.0.1/24 dev eth0",
        "link set eth0 up",
        "link set eth1 up",
        "route add default via 10.88.0.254 dev eth0",
    ];
    for command in commands {
        let words: Vec<&str> = std::iter::once("ip").chain(command.split(' ')).collect();
        node.run(&words)?;
    }
    Ok(())
}

/// Starts an empty store that serves at the node's address.
pub(crate) fn store(node: &Node) -> Result<Store> {
    let namespace = std::fs::File::open(format!("/proc/{}/ns/net", node.pid1()))
        .context("open the network of the node")?;
    let address: SocketAddr = format!("{ADDRESS}:9000").parse()?;
    // The store's threads are in the network of the thread that starts them.
    std::thread::spawn(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).context("enter the network of the node")?;
        Store::start_on(address).context("start the store")
    })
    .join()
    .map_err(|_| anyhow::anyhow!("the thread that starts the store panicked"))?
}
