//! A TCP proxy that forwards only a given number of bytes of the requests or of the responses. A test
//! therefore controls how much has been transferred when a process is killed. The upstream service can be
//! replaced; the address of the proxy stays the same.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};

/// The unit of the allowance.
const UNIT_BYTES: usize = 1024;
const BUFFER_BYTES: usize = 16 * UNIT_BYTES;

pub(crate) struct Gate {
    pub(crate) url: String,
    shared: Arc<Shared>,
    _accepting: JoinSet<()>,
}

struct Shared {
    upstream: Mutex<SocketAddr>,
    limited: Direction,
    allowance: Semaphore,
    passed_bytes: AtomicU64,
}

/// A direction of the traffic.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Request,
    Response,
}

impl Gate {
    /// Starts a gate that limits the requests to the service at this URL.
    pub(crate) async fn for_requests_to(service: &str) -> Self {
        Self::start(Direction::Request, service).await
    }

    /// Starts a gate that limits the responses of the service at this URL.
    pub(crate) async fn for_responses_of(service: &str) -> Self {
        Self::start(Direction::Response, service).await
    }

    async fn start(limited: Direction, service: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            upstream: Mutex::new(parse_address(service)),
            limited,
            allowance: Semaphore::new(0),
            passed_bytes: AtomicU64::new(0),
        });
        let mut accepting = JoinSet::new();
        let gate = Arc::clone(&shared);
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let gate = Arc::clone(&gate);
                // Broken connections are expected.
                connections.spawn(async move { gate.proxy_connection(client).await.unwrap_or_default() });
                while connections.try_join_next().is_some() {}
            }
        });
        Self { url, shared, _accepting: accepting }
    }

    /// Forwards new connections to the service at this URL.
    pub(crate) fn set_upstream(&self, service: &str) {
        *self.shared.upstream.lock().unwrap() = parse_address(service);
    }

    /// Lets this number of additional bytes through.
    pub(crate) fn let_through(&self, bytes: usize) {
        self.shared.allowance.add_permits(bytes / UNIT_BYTES);
    }

    /// Returns the number of bytes forwarded so far in the limited direction.
    pub(crate) fn passed_bytes(&self) -> u64 {
        self.shared.passed_bytes.load(Ordering::SeqCst)
    }
}

impl Shared {
    async fn proxy_connection(&self, mut client: TcpStream) -> std::io::Result<()> {
        let upstream = *self.upstream.lock().unwrap();
        let mut service = TcpStream::connect(upstream).await?;
        let (mut from_client, mut to_client) = client.split();
        let (mut from_service, mut to_service) = service.split();
        let requests = async {
            self.forward(Direction::Request, &mut from_client, &mut to_service).await?;
            to_service.shutdown().await
        };
        let responses = async {
            self.forward(Direction::Response, &mut from_service, &mut to_client).await?;
            to_client.shutdown().await
        };
        // When one side closes the connection, close the other.
        tokio::select! {
            result = requests => result,
            result = responses => result,
        }
    }

    /// Forwards bytes to the end of the stream. Bytes of the limited direction wait for an allowance.
    async fn forward(
        &self,
        direction: Direction,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> std::io::Result<()> {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let read = from.read(&mut buffer).await?;
            if read == 0 {
                return Ok(());
            }
            if direction == self.limited {
                let units = u32::try_from(read.div_ceil(UNIT_BYTES)).unwrap();
                self.allowance.acquire_many(units).await.unwrap().forget();
                self.passed_bytes.fetch_add(read as u64, Ordering::SeqCst);
            }
            to.write_all(&buffer[..read]).await?;
        }
    }
}

fn parse_address(url: &str) -> SocketAddr {
    url.trim_start_matches("http://").parse().unwrap()
}
