//! The connections of the gRPC port, with limits for their number, their idle time and their age.
//!
//! The keepalive of HTTP/2 begins after the handshakes, so a peer that never completes them is disconnected
//! here, after its idle time. Connections are also closed here at their maximum age and at the end of a
//! drain: tonic asks the streams to end, and then waits for them without a limit.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{Stream, stream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::config::ServerConfig;

/// The pause after a failed accept. The usual cause is that the process has no file descriptors left, and
/// accepting again immediately would cause a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The limits of connections.
#[derive(Clone)]
pub(super) struct Limits {
    connections_max: usize,
    silence: Duration,
    age: Option<Duration>,
    close: CancellationToken,
}

impl Limits {
    /// Limits from the configuration; all connections end when `close` is cancelled.
    pub(super) fn new(config: &ServerConfig, close: CancellationToken) -> Self {
        Self {
            connections_max: config.connections_max,
            // A live peer acknowledges a ping within this time.
            silence: config.http2.keepalive_interval() + config.http2.keepalive_timeout(),
            age: config.connection_age_max().map(|age| age + config.connection_age_grace()),
            close,
        }
    }
}

/// Accepts connections up to the limit. Others wait in the kernel queue.
pub(super) fn accepted(
    listener: TcpListener,
    limits: Limits,
) -> impl Stream<Item = Result<Connection, io::Error>> {
    let slots = Arc::new(Semaphore::new(limits.connections_max));
    stream::unfold((listener, slots, limits), |(listener, slots, limits)| async move {
        // The semaphore is never closed.
        let permit = Arc::clone(&slots).acquire_owned().await.ok()?;
        let stream = accept(&listener).await;
        let connection = Connection::new(stream, &limits, permit);
        Some((Ok(connection), (listener, slots, limits)))
    })
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Responses are whole messages: waiting to fill a packet only delays them.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "failed to set nodelay on connection");
                }
                return stream;
            }
            Err(error) => {
                tracing::warn!(%error, "failed to accept connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A connection that fails when its peer is idle for too long, when it is too old, and when the process
/// closes it.
pub(super) struct Connection {
    stream: TcpStream,
    silence: Duration,
    silent: Pin<Box<Sleep>>,
    too_old: Option<Pin<Box<Sleep>>>,
    close: Pin<Box<WaitForCancellationFutureOwned>>,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    fn new(stream: TcpStream, limits: &Limits, permit: OwnedSemaphorePermit) -> Self {
        Self {
            stream,
            silence: limits.silence,
            silent: Box::pin(sleep(limits.silence)),
            too_old: limits.age.map(|age| Box::pin(sleep(age))),
            close: Box::pin(limits.close.clone().cancelled_owned()),
            _permit: permit,
        }
    }

    fn is_cut(&mut self, context: &mut Context<'_>) -> bool {
        self.close.as_mut().poll(context).is_ready()
            || self.too_old.as_mut().is_some_and(|age| age.as_mut().poll(context).is_ready())
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
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use tokio::io::AsyncReadExt;

    use super::*;

    async fn listening(
        connections_max: usize,
    ) -> (impl Stream<Item = Result<Connection, io::Error>>, Limits, std::net::SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let silence = Duration::from_secs(50);
        let limits = Limits { connections_max, silence, age: None, close: CancellationToken::new() };
        (accepted(listener, limits.clone()), limits, address)
    }

    #[tokio::test]
    async fn connection_beyond_the_limit_waits() {
        let (accepted, _limits, address) = listening(1).await;
        let mut accepted = std::pin::pin!(accepted);
        let _clients = tokio::try_join!(TcpStream::connect(address), TcpStream::connect(address)).unwrap();
        let first = accepted.next().await.unwrap().unwrap();
        assert!(futures::poll!(accepted.next()).is_pending());
        drop(first);
        accepted.next().await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn idle_peer_is_disconnected() {
        let (accepted, _limits, address) = listening(1).await;
        let mut accepted = std::pin::pin!(accepted);
        let _client = TcpStream::connect(address).await.unwrap();
        let mut connection = accepted.next().await.unwrap().unwrap();
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
