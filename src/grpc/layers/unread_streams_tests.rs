//! Tests of streams that are not read, with a paused clock.

use futures::{FutureExt, StreamExt, stream, stream::BoxStream};
use http::{Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tonic::{Code, transport::server::Connected};

use super::*;
use crate::{
    admission::peers::{PeerConnection, PeerLimits, Peers},
    config::Config,
    grpc::{
        connections::PeerInfo,
        layers::{
            InFlight, UnreadResponses,
            testing::{call, request},
        },
    },
};

const DOWNLOAD: &str = "/strongroom.v1.FileService/DownloadFile";
const WATCH: &str = "/strongroom.v1.EventService/WatchFiles";

/// The streams of the contract, and the seconds for which their clients may read nothing.
const STREAMS: [(&str, u64); 4] = [
    (DOWNLOAD, 60),
    (WATCH, 120),
    ("/strongroom.v1.ImportService/ImportFiles", 120),
    ("/strongroom.admin.v1.TenantService/ExportTenant", 120),
];

const MESSAGE: Bytes = Bytes::from_static(&[7; 1024]);

type Messages = BoxStream<'static, Bytes>;

/// The layers that limit requests and unread responses.
struct Layers {
    in_flight: InFlight,
    unread: UnreadResponses,
}

impl Layers {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::defaults().unwrap();
        change(&mut config);
        Self { in_flight: InFlight::new(&config), unread: UnreadResponses::new(&config) }
    }

    /// Opens a stream of a verified caller.
    async fn open<M>(&self, request: Request<Body>, messages: M) -> Body
    where
        M: Fn() -> Messages + Clone + Send + Sync + 'static,
    {
        let unread = self.unread.clone();
        let verified = move |mut request: Request<Body>| {
            let (unread, messages) = (unread.clone(), messages.clone());
            async move {
                let holder = Holder::of_name(&"acme");
                request.extensions().get::<RequestSlot>().unwrap().assign(holder).unwrap();
                request.extensions_mut().insert(holder);
                let respond = move |_: Request<Body>| {
                    let frames = messages().map(|message| Ok::<_, Status>(Frame::data(message)));
                    async move { Response::new(Body::new(StreamBody::new(frames))) }
                };
                call(&unread, request, respond).await
            }
        };
        call(&self.in_flight, request, verified).await.into_body()
    }

    fn requests(&self) -> usize {
        self.in_flight.status().in_use
    }

    fn unread_units(&self) -> usize {
        self.unread.status().in_use
    }
}

fn endless() -> Messages {
    stream::repeat(MESSAGE).boxed()
}

/// The next message, as the transport asks for it when it has sent the one before.
async fn read(body: &mut Body) -> Bytes {
    body.frame().await.unwrap().unwrap().into_data().unwrap()
}

async fn sleep_seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn unread_stream_releases_everything() {
    let layers = Layers::new(|_| {});
    for (path, idle_seconds) in STREAMS {
        let held = Arc::new(());
        let in_stream = Arc::clone(&held);
        let messages = move || {
            let held = Arc::clone(&in_stream);
            endless().inspect(move |_| assert!(Arc::strong_count(&held) > 1)).boxed()
        };
        let mut body = layers.open(request(path), messages).await;
        read(&mut body).await;
        read(&mut body).await;
        sleep_seconds(idle_seconds - 1).await;
        assert_eq!((layers.requests(), Arc::strong_count(&held)), (1, 2), "{path}");
        sleep_seconds(2).await;
        assert_eq!((layers.requests(), Arc::strong_count(&held)), (0, 1), "{path}");
        assert_eq!(layers.unread_units(), 2, "the transport may have two messages");
        let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(Status::from_header_map(&trailers).unwrap().code(), Code::DeadlineExceeded);
        assert!(body.frame().await.is_none());
        drop(body);
        assert_eq!(layers.unread_units(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn stream_without_messages_is_not_unread() {
    let layers = Layers::new(|_| {});
    let quiet = || stream::once(async { MESSAGE }).chain(stream::pending()).boxed();
    let mut watch = layers.open(request(WATCH), quiet).await;
    read(&mut watch).await;
    assert!(watch.frame().now_or_never().is_none(), "the transport waits for a message");
    sleep_seconds(100_000).await;
    assert_eq!(layers.requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn last_byte_of_a_large_message_is_sent_alone() {
    let layers = Layers::new(|_| {});
    let messages = || stream::iter([MESSAGE, Bytes::from_static(&[7; 8_192])]).boxed();
    let mut download = layers.open(request(DOWNLOAD), messages).await;
    assert_eq!(read(&mut download).await.len(), 1_024);
    assert_eq!(read(&mut download).await.len(), 8_191);
    assert!(!download.is_end_stream());
    sleep_seconds(59).await;
    assert_eq!(read(&mut download).await.len(), 1);
    assert_eq!(layers.requests(), 1);
    assert!(download.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn slow_reader_keeps_its_stream() {
    let layers = Layers::new(|_| {});
    let mut download = layers.open(request(DOWNLOAD), endless).await;
    for _ in 0..100 {
        assert_eq!(read(&mut download).await, MESSAGE);
        sleep_seconds(59).await;
    }
    assert_eq!(layers.requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn closed_stream_releases_everything_at_once() {
    let layers = Layers::new(|_| {});
    let mut download = layers.open(request(DOWNLOAD), endless).await;
    read(&mut download).await;
    drop(download);
    assert_eq!((layers.requests(), layers.unread_units()), (0, 0));
}

#[tokio::test]
async fn unread_stream_without_space_costs_its_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = TcpStream::connect(address).await.unwrap();
    let peers =
        Peers::new(PeerLimits { shares: None, connections_max: 9, per_address_max: 9, trusted: Vec::new() });
    tokio::time::pause();
    for is_trusted in [false, true] {
        let layers = Layers::new(|config| {
            config.server.unread_responses_max_bytes = 8 << 20;
            config.server.trusted_proxies = match is_trusted {
                true => vec!["127.0.0.0/8".parse().unwrap()],
                false => Vec::new(),
            };
        });
        let connection = peers.admit(address.ip(), &CancellationToken::new()).await.unwrap();
        let mut bodies = Vec::new();
        for _ in 0..2 {
            // As much as one caller may leave unread.
            let large = || stream::repeat(Bytes::from(vec![7; 4 << 20])).boxed();
            let mut body = layers.open(request_on(&connection, &client), large).await;
            read(&mut body).await;
            bodies.push(body);
        }
        sleep_seconds(61).await;
        assert_eq!(connection.close().is_cancelled(), !is_trusted);
        assert_eq!(layers.requests(), 1, "the second one has no space");
        drop(bodies);
        assert_eq!((layers.requests(), layers.unread_units()), (0, 0));
    }
}

fn request_on(connection: &PeerConnection, client: &TcpStream) -> Request<Body> {
    let mut request = request(DOWNLOAD);
    let info = PeerInfo { tcp: client.connect_info(), peer: connection.peer().clone() };
    request.extensions_mut().insert(info);
    request
}
