//! A TCP proxy that counts what really crosses the wire.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub(crate) struct CountingProxy {
    pub(crate) address: SocketAddr,
    to_server: Arc<AtomicU64>,
    to_client: Arc<AtomicU64>,
    silent: Arc<AtomicBool>,
    accepting: JoinHandle<()>,
}

impl CountingProxy {
    pub(crate) async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (to_server, to_client) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let counters = (to_server.clone(), to_client.clone());
        let silent = Arc::<AtomicBool>::default();
        let hushed = silent.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(server).await.unwrap();
                client.set_nodelay(true).unwrap();
                server.set_nodelay(true).unwrap();
                let ((client_rx, client_tx), (server_rx, server_tx)) =
                    (client.into_split(), server.into_split());
                tokio::spawn(copy(client_rx, server_tx, counters.0.clone(), hushed.clone()));
                tokio::spawn(copy(server_rx, client_tx, counters.1.clone(), hushed.clone()));
            }
        });
        Self { address, to_server, to_client, silent, accepting }
    }

    /// Passes nothing on any more, and closes nothing: as where a cable is cut.
    pub(crate) fn fall_silent(&self) {
        self.silent.store(true, Ordering::Relaxed);
    }

    /// Passes on again, also what came meanwhile.
    pub(crate) fn go_on(&self) {
        self.silent.store(false, Ordering::Relaxed);
    }

    /// Takes no new connection; those it has go on.
    pub(crate) async fn stop(self) {
        self.accepting.abort();
        let _ = self.accepting.await;
    }

    /// Bytes so far: to the server, to the client.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        (self.to_server.load(Ordering::Relaxed), self.to_client.load(Ordering::Relaxed))
    }
}

async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    count: Arc<AtomicU64>,
    silent: Arc<AtomicBool>,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        while silent.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        count.fetch_add(read as u64, Ordering::Relaxed);
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
