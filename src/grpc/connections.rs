//! Connections of the gRPC port, bounded in number, in silence and in age.
//!
//! HTTP/2's own keepalive begins after the handshakes; a peer that never finishes those is ended here, by
//! silence. The last word at a connection's greatest age and at the end of draining is spoken here too: tonic
//! asks streams to end and then waits for them without a limit.

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

/// The pause after a failed accept: mostly the process is out of file descriptors, and asking again at once
/// would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What bounds a connection.
#[derive(Clone)]
pub(super) struct Limits {
    connections_max: usize,
    silence: Duration,
    age: Option<Duration>,
    cut: CancellationToken,
}

impl Limits {
    /// Limits from the configuration; all connections end when `cut` is cancelled.
    pub(super) fn new(config: &ServerConfig, cut: CancellationToken) -> Self {
        Self {
            connections_max: config.connections_max,
            // A peer that is there answers a ping within this time.
            silence: config.http2.keepalive_interval() + config.http2.keepalive_timeout(),
            age: config.connection_age_max().map(|age| age + config.connection_age_grace()),
            cut,
        }
    }
}

/// Accepts connections while there is room; others wait in the kernel's queue.
pub(super) fn accepted(
    listener: TcpListener,
    limits: Limits,
) -> impl Stream<Item = Result<Connection, io::Error>> {
    let room = Arc::new(Semaphore::new(limits.connections_max));
    stream::unfold((listener, room, limits), |(listener, room, limits)| async move {
        // The semaphore is never closed, so there is always a permit to come.
        let permit = Arc::clone(&room).acquire_owned().await.ok()?;
        let stream = accept(&listener).await;
        let connection = Connection::new(stream, &limits, permit);
        Some((Ok(connection), (listener, room, limits)))
    })
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Answers are whole messages: waiting to fill a packet only delays them.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "a connection has no nodelay");
                }
                return stream;
            }
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A connection that fails when its peer is silent for too long, when it is too old, and when the process
/// cuts it.
pub(super) struct Connection {
    stream: TcpStream,
    silence: Duration,
    silent: Pin<Box<Sleep>>,
    too_old: Option<Pin<Box<Sleep>>>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    fn new(stream: TcpStream, limits: &Limits, permit: OwnedSemaphorePermit) -> Self {
        Self {
            stream,
            silence: limits.silence,
            silent: Box::pin(sleep(limits.silence)),
            too_old: limits.age.map(|age| Box::pin(sleep(age))),
            cut: Box::pin(limits.cut.clone().cancelled_owned()),
            _permit: permit,
        }
    }

    fn is_cut(&mut self, context: &mut Context<'_>) -> bool {
        self.cut.as_mut().poll(context).is_ready()
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
        let limits = Limits { connections_max, silence, age: None, cut: CancellationToken::new() };
        (accepted(listener, limits.clone()), limits, address)
    }

    #[tokio::test]
    async fn connections_beyond_the_limit_wait_until_one_is_closed() {
        let (accepted, _limits, address) = listening(1).await;
        let mut accepted = std::pin::pin!(accepted);
        let _clients = tokio::try_join!(TcpStream::connect(address), TcpStream::connect(address)).unwrap();
        let first = accepted.next().await.unwrap().unwrap();
        assert!(futures::poll!(accepted.next()).is_pending());
        drop(first);
        accepted.next().await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_silent_peer_is_ended() {
        let (accepted, _limits, address) = listening(1).await;
        let mut accepted = std::pin::pin!(accepted);
        let _client = TcpStream::connect(address).await.unwrap();
        let mut connection = accepted.next().await.unwrap().unwrap();
        tokio::time::pause();
        let error = connection.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn every_connection_is_cut_at_the_end_of_draining() {
        let (accepted, limits, address) = listening(1).await;
        let mut accepted = std::pin::pin!(accepted);
        let _client = TcpStream::connect(address).await.unwrap();
        let mut connection = accepted.next().await.unwrap().unwrap();
        limits.cut.cancel();
        assert_eq!(connection.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }
}
