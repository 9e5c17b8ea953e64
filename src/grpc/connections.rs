//! The connections of the gRPC port, with limits for their number, their idle time and their age.
//!
//! A connection on which no request is authenticated in time is closed, unless it is one of a trusted proxy. A port
//! that is full closes such connections, and idle ones, to make room, and tenants share the connections ([`Peers`]).
//! A connection beyond a share is not asked to close, because tonic sends GOAWAY only by age and at shutdown: its
//! requests are refused, so it is closed like one that does not authenticate, or is used again when the share allows
//! it.
//!
//! The keepalive of HTTP/2 begins after the handshakes, so a peer that never completes them is disconnected
//! here, after its idle time. Connections are also closed here at their maximum age and at the end of a
//! drain: tonic asks the streams to end, and then waits for them without a limit.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{Stream, stream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::{Instant, Sleep, sleep},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::{
    admission::{
        ShareLimits,
        peers::{Peer, PeerConnection, PeerLimits, Peers},
    },
    config::ServerConfig,
    telemetry::Metrics,
};

/// The pause after a failed accept. The usual cause is that the process has no file descriptors left, and
/// accepting again immediately would cause a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The limits of connections.
#[derive(Clone)]
pub(super) struct Limits {
    peers: Arc<Peers>,
    unauthenticated: Duration,
    silence: Duration,
    age: Option<Duration>,
    close: CancellationToken,
}

impl Limits {
    /// Limits from the configuration; all connections end when `close` is cancelled.
    pub(super) fn new(config: &ServerConfig, metrics: &Metrics, close: CancellationToken) -> Self {
        let peers = Peers::new(PeerLimits {
            connections_max: config.connections_max,
            per_address_max: config.connections_per_address_max,
            trusted: config.trusted_proxies.clone(),
            shares: Some(
                ShareLimits::slots(config.connections_max).with_reserve(config.connections_reserved()),
            ),
        });
        let (observed, shared) = (Arc::clone(&peers), Arc::clone(&peers));
        metrics.observe_peers("grpc", move || observed.status().into());
        metrics.observe_shares("connections", move || shared.share_status().into());
        Self {
            peers,
            unauthenticated: config.unauthenticated_timeout(),
            // A live peer acknowledges a ping within this time.
            silence: config.http2.keepalive_interval() + config.http2.keepalive_timeout(),
            age: config.connection_age_max().map(|age| age + config.connection_age_grace()),
            close,
        }
    }
}

/// Accepts connections up to the limit. If all are in use, others wait in the kernel queue.
pub(super) fn accepted(
    listener: TcpListener,
    limits: Limits,
) -> impl Stream<Item = Result<Connection, io::Error>> {
    stream::unfold((listener, limits), |(listener, limits)| async move {
        loop {
            let (stream, address) = accept(&listener).await;
            // A connection that its address may not have is closed here.
            if let Some(admitted) = limits.peers.admit(address.ip(), &limits.close).await {
                let connection = Connection::new(stream, &limits, admitted);
                return Some((Ok(connection), (listener, limits)));
            }
        }
    })
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                // Responses are whole messages: waiting to fill a packet only delays them.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "failed to set nodelay on connection");
                }
                return (stream, address);
            }
            Err(error) => {
                tracing::warn!(%error, "failed to accept connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The peer of a request, in its extensions.
#[derive(Debug, Clone)]
pub(super) struct PeerInfo {
    pub(super) tcp: TcpConnectInfo,
    pub(super) peer: Peer,
}

/// A connection that fails when its peer is idle for too long or does not authenticate, when it is too old,
/// and when the process closes it.
pub(super) struct Connection {
    stream: TcpStream,
    silence: Duration,
    silent: Pin<Box<Sleep>>,
    too_old: Option<Pin<Box<Sleep>>>,
    close: Pin<Box<WaitForCancellationFutureOwned>>,
    /// When a request must have been authenticated. `None` after that.
    unauthenticated: Option<Pin<Box<Sleep>>>,
    admitted: PeerConnection,
}

impl Connection {
    fn new(stream: TcpStream, limits: &Limits, admitted: PeerConnection) -> Self {
        Self {
            stream,
            silence: limits.silence,
            silent: Box::pin(sleep(limits.silence)),
            too_old: limits.age.map(|age| Box::pin(sleep(age))),
            close: Box::pin(admitted.close().clone().cancelled_owned()),
            unauthenticated: Some(Box::pin(sleep(limits.unauthenticated))),
            admitted,
        }
    }

    fn is_cut(&mut self, context: &mut Context<'_>) -> bool {
        self.close.as_mut().poll(context).is_ready()
            || self.too_old.as_mut().is_some_and(|age| age.as_mut().poll(context).is_ready())
            || self.is_unauthenticated(context)
    }

    /// Whether the time to authenticate a request is over, and none was.
    fn is_unauthenticated(&mut self, context: &mut Context<'_>) -> bool {
        let Some(limit) = &mut self.unauthenticated else { return false };
        if limit.as_mut().poll(context).is_pending() {
            return false;
        }
        self.unauthenticated = None;
        !self.admitted.peer().is_known()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_cut(context) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_ready() {
            let until = Instant::now() + self.silence;
            self.silent.as_mut().reset(until);
            return read;
        }
        match self.silent.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_cut(context) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_cut(context) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Connected for Connection {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        PeerInfo { tcp: self.stream.connect_info(), peer: self.admitted.peer().clone() }
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use tokio::io::AsyncReadExt;

    use super::*;

    async fn listening(
        connections_max: usize,
    ) -> (impl Stream<Item = Result<Connection, io::Error>>, Limits, SocketAddr) {
        listening_behind(connections_max, &[]).await
    }

    async fn listening_behind(
        connections_max: usize,
        trusted: &[&str],
    ) -> (impl Stream<Item = Result<Connection, io::Error>>, Limits, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let silence = Duration::from_secs(50);
        let per_address_max = connections_max;
        let trusted = trusted.iter().map(|range| range.parse().unwrap()).collect();
        let peers = Peers::new(PeerLimits { connections_max, per_address_max, trusted, shares: None });
        let unauthenticated = Duration::from_secs(30);
        let limits = Limits { peers, unauthenticated, silence, age: None, close: CancellationToken::new() };
        (accepted(listener, limits.clone()), limits, address)
    }

    #[tokio::test]
    async fn idle_connection_makes_room_for_a_new_one() {
        let (accepted, _limits, address) = listening(1).await;
        let mut accepted = std::pin::pin!(accepted);
        let _clients = tokio::try_join!(TcpStream::connect(address), TcpStream::connect(address)).unwrap();
        let mut first = accepted.next().await.unwrap().unwrap();
        let _second = accepted.next().await.unwrap().unwrap();
        assert_eq!(first.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn connection_with_a_request_keeps_its_place() {
        let (accepted, limits, address) = listening(1).await;
        let mut accepted = std::pin::pin!(accepted);
        let mut clients = Vec::new();
        clients.push(TcpStream::connect(address).await.unwrap());
        let first = accepted.next().await.unwrap().unwrap();
        let PeerInfo { peer, .. } = first.connect_info();
        peer.mark_known();
        let request = peer.start_request();
        clients.push(TcpStream::connect(address).await.unwrap());
        // The address is at its limit, so the connection is closed.
        let mut refused = clients.pop().unwrap();
        tokio::select! {
            closed = refused.read_u8() => assert!(closed.is_err()),
            _ = accepted.next() => panic!("accepted"),
        }
        assert_eq!(limits.peers.status().refused, 1);
        drop((request, first));
    }

    #[tokio::test]
    async fn unauthenticated_peer_is_disconnected() {
        let (accepted, _limits, address) = listening(2).await;
        let mut accepted = std::pin::pin!(accepted);
        let mut clients = Vec::new();
        for _ in 0..2 {
            clients.push(TcpStream::connect(address).await.unwrap());
        }
        let mut stranger = accepted.next().await.unwrap().unwrap();
        let mut known = accepted.next().await.unwrap().unwrap();
        known.connect_info().peer.mark_known();
        tokio::time::pause();
        assert_eq!(stranger.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(known.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn trusted_proxy_need_not_authenticate() {
        let (accepted, _limits, address) = listening_behind(1, &["127.0.0.1"]).await;
        let mut accepted = std::pin::pin!(accepted);
        let _client = TcpStream::connect(address).await.unwrap();
        let mut proxy = accepted.next().await.unwrap().unwrap();
        tokio::time::pause();
        assert_eq!(proxy.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn idle_peer_is_disconnected() {
        let (accepted, _limits, address) = listening(1).await;
        let mut accepted = std::pin::pin!(accepted);
        let _client = TcpStream::connect(address).await.unwrap();
        let mut connection = accepted.next().await.unwrap().unwrap();
        connection.connect_info().peer.mark_known();
        tokio::time::pause();
        let error = connection.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn connections_are_closed_at_the_end_of_a_drain() {
        let (accepted, limits, address) = listening(1).await;
        let mut accepted = std::pin::pin!(accepted);
        let _client = TcpStream::connect(address).await.unwrap();
        let mut connection = accepted.next().await.unwrap().unwrap();
        limits.close.cancel();
        assert_eq!(connection.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }
}
