//! A fault-injecting proxy between the service and a dependency. It forwards everything unless a rule
//! matches. It parses each protocol only as far as rules need: the first line of HTTP requests, and the
//! statements sent to PostgreSQL.

mod http;
mod postgres;
mod raw;

use std::{
    io,
    net::SocketAddr,
    ops::Range,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{TcpSocket, TcpStream, UnixStream},
    sync::Semaphore,
    task::JoinSet,
};

/// The protocol of the connections, which determines the text that rules match.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Protocol {
    /// Rules match the first line of each request, such as `PUT /bucket/key HTTP/1.1`.
    Http,
    /// Rules match the type and the text of each message to the server, such as `Q COMMIT`.
    Postgres,
    /// Rules match each connection once, with an empty text.
    Raw,
}

/// The address to forward to.
#[derive(Debug, Clone)]
pub(crate) enum Upstream {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// The fault for a message that a rule matches.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// Forwards the first bytes of the request, then closes the connection.
    CutRequest { after_bytes: usize },
    /// Forwards the request, drops the response, and closes the connection.
    DropResponse,
    /// Delivers the first bytes of the response body, then closes the connection.
    CutResponse { after_bytes: usize },
    /// Responds without forwarding the request.
    Respond { status: u16, body: &'static str },
    /// Forwards the request, and replaces its response.
    ReplaceResponse { status: u16, body: &'static str },
    /// Delivers the response in small pieces.
    TrickleResponse { piece_bytes: usize },
    /// Waits for a permit before forwarding the request.
    Hold(Arc<Semaphore>),
}

/// Counts how often a rule has matched.
#[derive(Debug, Clone, Default)]
pub(crate) struct MatchCount(Arc<AtomicUsize>);

impl MatchCount {
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

struct Rule {
    matches: Box<dyn Fn(&str) -> bool + Send + Sync>,
    /// The matches that get the fault, counted from 0.
    affected: Range<usize>,
    fault: Fault,
    match_count: MatchCount,
}

/// A running proxy. Dropping it closes all connections.
pub(crate) struct Proxy {
    address: SocketAddr,
    protocol: Protocol,
    upstream: Upstream,
    rules: Arc<Rules>,
    running: Mutex<JoinSet<()>>,
    /// Keeps the port of a stopped proxy: it is bound and does not listen, so the system refuses connections.
    reserved: Mutex<Option<TcpSocket>>,
}

#[derive(Default)]
struct Rules(Mutex<Vec<Rule>>);

impl Rules {
    /// Returns the fault for a message. Every matching rule counts the message; the first rule whose range
    /// includes the current count determines the fault.
    fn find_fault(&self, text: &str) -> Option<Fault> {
        let mut fault = None;
        for rule in self.0.lock().unwrap().iter().filter(|rule| (rule.matches)(text)) {
            let index = rule.match_count.0.fetch_add(1, Ordering::SeqCst);
            if fault.is_none() && rule.affected.contains(&index) {
                fault = Some(rule.fault.clone());
            }
        }
        fault
    }
}

impl Proxy {
    /// Starts a proxy on a free port. Must be called in a tokio runtime.
    pub(crate) fn start(protocol: Protocol, upstream: Upstream) -> Self {
        let socket = bind("127.0.0.1:0".parse().unwrap());
        let proxy = Self {
            address: socket.local_addr().unwrap(),
            protocol,
            upstream,
            rules: Arc::default(),
            running: Mutex::default(),
            reserved: Mutex::new(Some(socket)),
        };
        proxy.restart();
        proxy
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Injects a fault into matching messages. `affected` is the range of matches that get the fault, counted
    /// from 0; other matches are only counted.
    pub(crate) fn inject(
        &self,
        affected: Range<usize>,
        fault: Fault,
        matches: impl Fn(&str) -> bool + Send + Sync + 'static,
    ) -> MatchCount {
        let match_count = MatchCount::default();
        let rule = Rule { matches: Box::new(matches), affected, fault, match_count: match_count.clone() };
        self.rules.0.lock().unwrap().push(rule);
        match_count
    }

    /// Counts matching messages without injecting faults.
    pub(crate) fn count_matches(&self, matches: impl Fn(&str) -> bool + Send + Sync + 'static) -> MatchCount {
        self.inject(0..0, Fault::DropResponse, matches)
    }

    /// Removes all rules.
    pub(crate) fn clear_faults(&self) {
        self.rules.0.lock().unwrap().clear();
    }

    /// Closes all connections, and refuses new ones.
    pub(crate) async fn stop(&self) {
        let mut running = std::mem::take(&mut *self.running.lock().unwrap());
        running.shutdown().await;
        *self.reserved.lock().unwrap() = Some(bind(self.address));
    }

    /// Accepts connections again at the same address.
    pub(crate) fn restart(&self) {
        let socket = self.reserved.lock().unwrap().take().expect("the proxy is stopped");
        let listener = socket.listen(1024).unwrap();
        let (protocol, upstream, rules) = (self.protocol, self.upstream.clone(), Arc::clone(&self.rules));
        self.running.lock().unwrap().spawn(async move {
            // Dropping the set closes the connections together with the listener.
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (upstream, rules) = (upstream.clone(), Arc::clone(&rules));
                connections.spawn(async move {
                    // Broken connections are expected.
                    let _ = proxy_connection(protocol, client, upstream, &rules).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
    }
}

/// Binds a port, also if connections of an earlier socket are still closing.
fn bind(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

async fn proxy_connection(
    protocol: Protocol,
    client: TcpStream,
    upstream: Upstream,
    rules: &Rules,
) -> io::Result<()> {
    client.set_nodelay(true)?;
    match upstream {
        Upstream::Tcp(address) => {
            let server = TcpStream::connect(address).await?;
            server.set_nodelay(true)?;
            forward(protocol, client, server, rules).await
        }
        Upstream::Unix(path) => forward(protocol, client, UnixStream::connect(path).await?, rules).await,
    }
}

async fn forward(
    protocol: Protocol,
    client: TcpStream,
    server: impl AsyncRead + AsyncWrite,
    rules: &Rules,
) -> io::Result<()> {
    let (server_reader, server_writer) = tokio::io::split(server);
    let (server_reader, server_writer) = (std::pin::pin!(server_reader), std::pin::pin!(server_writer));
    match protocol {
        Protocol::Http => http::forward(client, server_reader, server_writer, rules).await,
        Protocol::Postgres => postgres::forward(client, server_reader, server_writer, rules).await,
        Protocol::Raw => raw::forward(client, server_reader, server_writer, rules).await,
    }
}

/// Waits for a permit and consumes it, so that each permit lets one message pass.
async fn wait_for_permit(gate: &Semaphore) {
    gate.acquire().await.unwrap().forget();
}

async fn write_in_pieces(
    to: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
    piece_bytes: usize,
) -> io::Result<()> {
    for piece in bytes.chunks(piece_bytes) {
        to.write_all(piece).await?;
        to.flush().await?;
        tokio::task::yield_now().await;
    }
    Ok(())
}
