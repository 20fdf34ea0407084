//! The network between the node and its store: a TCP proxy on loopback that can refuse connections
//! and come back at the same port, and can reset those that it has. To a client that is a store
//! that was killed, with its data on disk, or a router that lost its state.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// The proxy; it ends when dropped.
pub(crate) struct Gate {
    address: SocketAddr,
    state: watch::Sender<State>,
    _runtime: Runtime,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct State {
    open: bool,
    /// How often all connections were reset.
    resets: u64,
}

impl Gate {
    /// Starts a proxy for `store` on a free port.
    pub(crate) fn start(store: SocketAddr) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let address = listener.local_addr()?;
        let (sender, state) = watch::channel(State {
            open: true,
            resets: 0,
        });
        runtime.spawn(run(listener, address, store, state));
        Ok(Self {
            address,
            state: sender,
            _runtime: runtime,
        })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Resets all connections; new ones are let in.
    pub(crate) fn reset(&self) {
        self.state.send_modify(|state| state.resets += 1);
    }

    /// Resets all connections and refuses new ones.
    pub(crate) fn close(&self) {
        self.state.send_modify(|state| {
            state.open = false;
            state.resets += 1;
        });
    }

    /// Lets connections in again.
    pub(crate) fn open(&self) {
        self.state.send_modify(|state| state.open = true);
    }
}

async fn run(
    listener: TcpListener,
    address: SocketAddr,
    store: SocketAddr,
    mut state: watch::Receiver<State>,
) {
    let mut listener = Some(listener);
    loop {
        let now = *state.borrow_and_update();
        if !now.open {
            listener = None;
        } else if listener.is_none() {
            listener = TcpListener::bind(address).await.ok();
        }
        tokio::select! {
            changed = state.changed() => if changed.is_err() { return },
            client = accept(listener.as_ref()) => if let Ok(client) = client {
                tokio::spawn(connection(client, store, now.resets, state.clone()));
            },
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.map(|(client, _)| client),
        None => std::future::pending().await,
    }
}

async fn connection(
    mut client: TcpStream,
    store: SocketAddr,
    resets: u64,
    mut state: watch::Receiver<State>,
) {
    let Ok(mut server) = TcpStream::connect(store).await else {
        return;
    };
    // Costs only speed where it cannot be set.
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    tokio::select! {
        // Either end may go away at any time.
        _ = copy_bidirectional(&mut client, &mut server) => {}
        _ = state.wait_for(|state| state.resets != resets) => {
            for stream in [&client, &server] {
                // Closed with RST, not with FIN; a FIN where that is not to be had.
                #[expect(deprecated, reason = "with no time at all it does not wait when dropped")]
                let _ = stream.set_linger(Some(Duration::ZERO));
            }
        }
    }
}
