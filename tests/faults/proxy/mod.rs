//! A proxy of ours between the service and what it talks to. It hands everything on until a rule says otherwise, and knows
//! enough of each protocol to strike at a message: an HTTP request by its first line, a statement sent to PostgreSQL.

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
    net::{TcpListener, TcpStream, UnixStream},
    sync::Semaphore,
    task::JoinSet,
};

/// What is spoken, and so what a rule sees.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Protocol {
    /// A rule sees the first line of each request: `PUT /bucket/key HTTP/1.1`.
    Http,
    /// A rule sees the kind and the text of each message to the server: `Q COMMIT`.
    Postgres,
    /// A rule sees each connection once, by nothing: bytes are bytes.
    Raw,
}

/// Where everything goes on to.
#[derive(Debug, Clone)]
pub(crate) enum Upstream {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// What happens to a message that a rule has struck.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// So many bytes of it go on, then both sides find the connection closed.
    Cut { after_bytes: usize },
    /// It goes on and is answered, but the answer is never delivered: the connection is closed instead.
    LoseAnswer,
    /// Its answer is delivered up to so many bytes of the body, then the connection is closed.
    CutAnswer { after_bytes: usize },
    /// It never goes on; this is answered.
    Answer { status: u16, body: &'static str },
    /// It goes on, and this is answered whatever the other side said.
    AnswerInstead { status: u16, body: &'static str },
    /// Its answer is delivered in pieces of so many bytes.
    Trickle { piece_bytes: usize },
    /// It waits here for a permit before it goes on.
    Hold(Arc<Semaphore>),
}

/// How often a rule has matched.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen(Arc<AtomicUsize>);

impl Seen {
    pub(crate) fn times(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

struct Rule {
    matches: Box<dyn Fn(&str) -> bool + Send + Sync>,
    turns: Range<usize>,
    fault: Fault,
    seen: Seen,
}

/// A listening proxy. Dropping it closes everything.
pub(crate) struct Proxy {
    address: SocketAddr,
    protocol: Protocol,
    upstream: Upstream,
    rules: Arc<Rules>,
    running: Mutex<JoinSet<()>>,
}

#[derive(Default)]
struct Rules(Mutex<Vec<Rule>>);

impl Rules {
    /// What is to happen to a message. Every rule that matches counts it; the first whose turn it is strikes.
    fn judge(&self, headline: &str) -> Option<Fault> {
        let mut struck = None;
        for rule in self.0.lock().unwrap().iter().filter(|rule| (rule.matches)(headline)) {
            let turn = rule.seen.0.fetch_add(1, Ordering::SeqCst);
            if struck.is_none() && rule.turns.contains(&turn) {
                struck = Some(rule.fault.clone());
            }
        }
        struck
    }
}

impl Proxy {
    /// Listens on a port of its own. Needs a runtime to run in.
    pub(crate) fn start(protocol: Protocol, upstream: Upstream) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let proxy =
            Self { address, protocol, upstream, rules: Arc::default(), running: Mutex::new(JoinSet::new()) };
        proxy.accept(listener);
        proxy
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Strikes messages that match, from the first turn to the last; others are only counted.
    pub(crate) fn strike(
        &self,
        turns: Range<usize>,
        fault: Fault,
        matches: impl Fn(&str) -> bool + Send + Sync + 'static,
    ) -> Seen {
        let seen = Seen::default();
        let rule = Rule { matches: Box::new(matches), turns, fault, seen: seen.clone() };
        self.rules.0.lock().unwrap().push(rule);
        seen
    }

    /// Counts messages that match, and leaves them alone.
    pub(crate) fn count(&self, matches: impl Fn(&str) -> bool + Send + Sync + 'static) -> Seen {
        self.strike(0..0, Fault::LoseAnswer, matches)
    }

    /// From now on everything goes on as it comes.
    pub(crate) fn heal(&self) {
        self.rules.0.lock().unwrap().clear();
    }

    /// Refuses connections, and cuts those that there are.
    pub(crate) async fn go_down(&self) {
        let mut running = std::mem::take(&mut *self.running.lock().unwrap());
        running.shutdown().await;
    }

    /// Is there again, at the same address.
    pub(crate) fn come_up(&self) {
        self.accept(std::net::TcpListener::bind(self.address).unwrap());
    }

    fn accept(&self, listener: std::net::TcpListener) {
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let (protocol, upstream, rules) = (self.protocol, self.upstream.clone(), Arc::clone(&self.rules));
        self.running.lock().unwrap().spawn(async move {
            // Dropping the set ends the connections with the listener.
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (upstream, rules) = (upstream.clone(), Arc::clone(&rules));
                connections.spawn(async move {
                    // A connection that breaks is what this is for.
                    let _ = converse(protocol, client, upstream, &rules).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
    }
}

async fn converse(
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
            speak(protocol, client, server, rules).await
        }
        Upstream::Unix(path) => speak(protocol, client, UnixStream::connect(path).await?, rules).await,
    }
}

async fn speak(
    protocol: Protocol,
    client: TcpStream,
    server: impl AsyncRead + AsyncWrite,
    rules: &Rules,
) -> io::Result<()> {
    let (server_reader, server_writer) = tokio::io::split(server);
    let (server_reader, server_writer) = (std::pin::pin!(server_reader), std::pin::pin!(server_writer));
    match protocol {
        Protocol::Http => http::converse(client, server_reader, server_writer, rules).await,
        Protocol::Postgres => postgres::converse(client, server_reader, server_writer, rules).await,
        Protocol::Raw => raw::converse(client, server_reader, server_writer, rules).await,
    }
}

/// Waits for a permit and keeps it: each lets one message pass.
async fn held(gate: &Semaphore) {
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
