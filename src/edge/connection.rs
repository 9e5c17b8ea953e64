//! Limits the number of connections, the time in which the header of a request must arrive, and the idle time
//! of each connection.
//!
//! The idle timer of a connection is reset only when *the server* writes data. So one limit covers clients
//! that do not read the response, and idle connections. The header has a shorter time of its own. A probe is
//! always accepted: when all connections are in use, one that has not sent a complete request is closed
//! ([`Peers`]).

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::serve::Listener;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::{Instant, Sleep, sleep},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::{
    admission::peers::{PeerConnection, PeerLimits, PeerRequest, Peers},
    config::EdgeConfig,
};

/// The end of the header of a request.
const HEADER_END: &[u8] = b"\r\n\r\n";

/// Accepts connections, and closes others to make room.
pub(super) struct BoundedListener {
    listener: TcpListener,
    peers: Arc<Peers>,
    timeouts: Timeouts,
}

#[derive(Clone, Copy)]
struct Timeouts {
    idle: Duration,
    header_read: Duration,
}

impl BoundedListener {
    pub(super) fn new(listener: TcpListener, config: &EdgeConfig) -> Self {
        let peers = Peers::new(PeerLimits {
            connections_max: config.connections_max,
            per_address_max: config.connections_per_address_max,
            trusted: Vec::new(),
            // Probes have no tenants.
            shares: None,
        });
        let timeouts = Timeouts { idle: config.idle_timeout(), header_read: config.header_read_timeout() };
        Self { listener, peers, timeouts }
    }

    /// Returns the connections, for metrics.
    pub(super) fn peers(&self) -> &Arc<Peers> {
        &self.peers
    }
}

impl Listener for BoundedListener {
    type Io = BoundedStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, peer) = Listener::accept(&mut self.listener).await;
            if let Some(admitted) = self.peers.admit(peer.ip(), &CancellationToken::new()).await {
                return (BoundedStream::new(stream, self.timeouts, admitted), peer);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection that fails if the header of a request takes too long, or if the server wrote no data for the
/// idle timeout.
pub(super) struct BoundedStream {
    stream: TcpStream,
    timeouts: Timeouts,
    idle_timer: Pin<Box<Sleep>>,
    header_timer: Pin<Box<Sleep>>,
    header: Header,
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
    admitted: PeerConnection,
}

/// The header of the current request.
enum Header {
    /// This number of bytes of [`HEADER_END`] were received last.
    Incomplete { matched: usize },
    /// The request is in progress.
    Complete { _request: PeerRequest },
    /// The response was sent, and no byte of the next request has arrived.
    None,
}

impl BoundedStream {
    fn new(stream: TcpStream, timeouts: Timeouts, admitted: PeerConnection) -> Self {
        Self {
            stream,
            timeouts,
            idle_timer: Box::pin(sleep(timeouts.idle)),
            header_timer: Box::pin(sleep(timeouts.header_read)),
            // The first request is expected at once.
            header: Header::Incomplete { matched: 0 },
            closed: Box::pin(admitted.close().clone().cancelled_owned()),
            admitted,
        }
    }

    fn check_timers(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.closed.as_mut().poll(context).is_ready() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let is_incomplete = matches!(self.header, Header::Incomplete { .. });
        let is_late = is_incomplete && self.header_timer.as_mut().poll(context).is_ready();
        if is_late || self.idle_timer.as_mut().poll(context).is_ready() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }

    /// Notes received bytes. The timer of a header starts with its first byte.
    fn note_received(&mut self, bytes: &[u8]) {
        if bytes.is_empty() || matches!(self.header, Header::Complete { .. }) {
            return;
        }
        let mut matched = match self.header {
            Header::Incomplete { matched } => matched,
            Header::Complete { .. } | Header::None => {
                self.header_timer.as_mut().reset(Instant::now() + self.timeouts.header_read);
                0
            }
        };
        for byte in bytes {
            matched = match HEADER_END.get(matched) {
                Some(expected) if expected == byte => matched + 1,
                _ => usize::from(*byte == HEADER_END[0]),
            };
            if matched == HEADER_END.len() {
                let peer = self.admitted.peer();
                peer.mark_known();
                self.header = Header::Complete { _request: peer.start_request() };
                return;
            }
        }
        self.header = Header::Incomplete { matched };
    }

    fn note_sent(&mut self) {
        let deadline = Instant::now() + self.timeouts.idle;
        self.idle_timer.as_mut().reset(deadline);
        self.header = Header::None;
    }
}

impl AsyncRead for BoundedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_timers(context)?;
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if matches!(read, Poll::Ready(Ok(()))) {
            self.note_received(&buffer.filled()[before..]);
        }
        // A timer that was started just now must wake this task.
        self.check_timers(context)?;
        read
    }
}

impl AsyncWrite for BoundedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check_timers(context)?;
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if matches!(written, Poll::Ready(Ok(_))) {
            self.note_sent();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::config::Config;

    async fn listening(connections_max: usize) -> (BoundedListener, SocketAddr) {
        let mut config = Config::defaults().unwrap().edge;
        (config.connections_max, config.connections_per_address_max) = (connections_max, connections_max);
        let listener = BoundedListener::new(TcpListener::bind("127.0.0.1:0").await.unwrap(), &config);
        let address = Listener::local_addr(&listener).unwrap();
        (listener, address)
    }

    #[tokio::test]
    async fn half_sent_request_makes_room_for_a_new_connection() {
        let (mut listener, address) = listening(1).await;
        let mut half = TcpStream::connect(address).await.unwrap();
        half.write_all(b"GET /livez HTTP/1.1\r\nhost: ed").await.unwrap();
        let (mut first, _) = listener.accept().await;
        let _probe = TcpStream::connect(address).await.unwrap();
        let (_second, _) = listener.accept().await;
        assert_eq!(first.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn header_is_complete_across_any_cut() {
        let (mut listener, address) = listening(1).await;
        let mut client = TcpStream::connect(address).await.unwrap();
        client.set_nodelay(true).unwrap();
        let (mut stream, _) = listener.accept().await;
        let head = b"GET / HTTP/1.1\r\na: b\r\r\nc: d\r\n\r\n";
        for (index, byte) in head.iter().enumerate() {
            assert!(!matches!(stream.header, Header::Complete { .. }), "after {index} bytes");
            client.write_all(&[*byte]).await.unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), *byte);
        }
        assert!(matches!(stream.header, Header::Complete { .. }));
        stream.write_all(b"ok").await.unwrap();
        assert!(matches!(stream.header, Header::None));
    }
}
