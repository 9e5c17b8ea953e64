//! A door before a service that lets through only as many bytes as it was told to, of what clients send or of what they are
//! answered: how far something is when it is killed is then known. The service behind it may change; the door stays where it
//! is.

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

/// The allowance is counted in these.
const UNIT_BYTES: usize = 1024;
const BUFFER_BYTES: usize = 16 * UNIT_BYTES;

pub(crate) struct Gate {
    pub(crate) url: String,
    shared: Arc<Shared>,
    _accepting: JoinSet<()>,
}

struct Shared {
    upstream: Mutex<SocketAddr>,
    counted: Counted,
    allowance: Semaphore,
    passed_bytes: AtomicU64,
}

/// Which bytes need an allowance.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Counted {
    Sent,
    Answered,
}

impl Gate {
    /// A door before the service at this URL that is closed for what clients send.
    pub(crate) async fn before(service: &str) -> Self {
        Self::closed_for(Counted::Sent, service).await
    }

    /// A door before the service at this URL that is closed for its answers.
    pub(crate) async fn before_answers_of(service: &str) -> Self {
        Self::closed_for(Counted::Answered, service).await
    }

    async fn closed_for(counted: Counted, service: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            upstream: Mutex::new(address(service)),
            counted,
            allowance: Semaphore::new(0),
            passed_bytes: AtomicU64::new(0),
        });
        let mut accepting = JoinSet::new();
        let door = Arc::clone(&shared);
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let door = Arc::clone(&door);
                // A connection that breaks is what this is for.
                connections.spawn(async move { door.converse(client).await.unwrap_or_default() });
                while connections.try_join_next().is_some() {}
            }
        });
        Self { url, shared, _accepting: accepting }
    }

    /// From now on the service is here.
    pub(crate) fn lead_to(&self, service: &str) {
        *self.shared.upstream.lock().unwrap() = address(service);
    }

    /// Lets so many bytes more through.
    pub(crate) fn let_through(&self, bytes: usize) {
        self.shared.allowance.add_permits(bytes / UNIT_BYTES);
    }

    /// How many bytes went through so far.
    pub(crate) fn passed_bytes(&self) -> u64 {
        self.shared.passed_bytes.load(Ordering::SeqCst)
    }
}

impl Shared {
    async fn converse(&self, mut client: TcpStream) -> std::io::Result<()> {
        let upstream = *self.upstream.lock().unwrap();
        let mut service = TcpStream::connect(upstream).await?;
        let (mut from_client, mut to_client) = client.split();
        let (mut from_service, mut to_service) = service.split();
        let there = async {
            self.pass(Counted::Sent, &mut from_client, &mut to_service).await?;
            to_service.shutdown().await
        };
        let back = async {
            self.pass(Counted::Answered, &mut from_service, &mut to_client).await?;
            to_client.shutdown().await
        };
        // Whichever side ends first takes the other along.
        tokio::select! {
            ended = there => ended,
            ended = back => ended,
        }
    }

    /// Passes bytes on until there are no more; those that are counted as far as there is an allowance.
    async fn pass(
        &self,
        which: Counted,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> std::io::Result<()> {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let read = from.read(&mut buffer).await?;
            if read == 0 {
                return Ok(());
            }
            if which == self.counted {
                let units = u32::try_from(read.div_ceil(UNIT_BYTES)).unwrap();
                self.allowance.acquire_many(units).await.unwrap().forget();
                self.passed_bytes.fetch_add(read as u64, Ordering::SeqCst);
            }
            to.write_all(&buffer[..read]).await?;
        }
    }
}

fn address(url: &str) -> SocketAddr {
    url.trim_start_matches("http://").parse().unwrap()
}
