//! The server: its transport with all limits, and the stack of layers in reading order.

use std::{convert::Infallible, path::PathBuf, sync::Arc, time::Duration};

use tokio::{net::TcpListener, time::sleep};
use tokio_util::sync::CancellationToken;
use tonic::{
    codec::CompressionEncoding,
    service::Routes,
    transport::{Identity, Server, ServerTlsConfig},
};
use tonic_health::{
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};
use tower::Layer;

use super::{
    auth::{Authenticator, layer::Auth},
    client_address::TrustedProxies,
    connections::{Limits, accepted},
    downloads::Downloads,
    events::Events,
    files::Files,
    health,
    imports::Imports,
    layers::{
        Admit, AroundLayer, ArrivalLimits, CallId, Deadline, DecodedMessages, DetailedErrors, Drain,
        FirstCalls, HeaderLimit, InFlight, Inner, Measure, MessageBudget, PanicBarrier, RunningCalls,
        Suspension, Trace, UnreadResponses,
    },
    message_limits::MessageLimits,
    peer_waits::wait_for_peer,
    policies::Policies,
    quotas::Quotas,
    service_info::ServiceInfos,
    shares::Shares,
    tenants::Tenants,
    uploads::{UploadStreams, Uploads},
    webhooks::Webhooks,
};
use crate::{
    app::{App, service_info::TransportLimits, uploads::PaceLimits},
    config::{Config, ServerConfig, server::TlsConfig},
    proto::{
        self,
        admin::v1::tenant_service_server::TenantServiceServer,
        v1::{
            event_service_server::EventServiceServer, file_service_server::FileServiceServer,
            import_service_server::ImportServiceServer, policy_service_server::PolicyServiceServer,
            quota_service_server::QuotaServiceServer, service_info_service_server::ServiceInfoServiceServer,
            share_service_server::ShareServiceServer, upload_service_server::UploadServiceServer,
            webhook_service_server::WebhookServiceServer,
        },
    },
    telemetry::{Health, Metrics},
};

/// Limits the messages to a service that receives no bytes of files. The generated servers share no trait.
macro_rules! small_messages {
    ($server:expr) => {
        $server
            .accept_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(MessageLimits::SMALL_BYTES_MAX)
    };
}

/// The parts of the server.
pub struct GrpcServer {
    /// The use cases.
    pub app: Arc<App>,
    /// Verifies the credentials of callers.
    pub authenticator: Arc<Authenticator>,
    /// Read by the health service. This server reports here that it is draining.
    pub health: Health,
    /// Counts requests and downloaded bytes.
    pub metrics: Metrics,
}

/// The layers whose limits all requests share.
#[derive(Clone)]
struct SharedLimits {
    in_flight: InFlight,
    unread_responses: UnreadResponses,
    message_budget: MessageBudget,
    decoded_messages: DecodedMessages,
}

/// An error that prevents the server from serving.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Certificate or key cannot be read.
    #[error("failed to read {}", path.display())]
    TlsFile {
        /// The path of the file.
        path: PathBuf,
        /// The I/O error.
        source: std::io::Error,
    },
    /// The transport failed, or refused its settings; usually because certificate and key do not match.
    #[error("failed to serve gRPC")]
    Transport(#[source] tonic::transport::Error),
    /// The descriptor set cannot be served.
    #[error("failed to build reflection service")]
    Reflection(#[source] tonic_reflection::server::Error),
}

impl GrpcServer {
    /// Serves until `shutdown` completes and the calls in flight have ended. Calls that last longer than
    /// `server.drain_seconds` after that end with SHUTTING_DOWN. The caller binds the listener (to
    /// `server.listen`), so that it knows the port beforehand.
    ///
    /// # Errors
    /// Returns an error if TLS or reflection cannot be set up, or if the transport fails. A broken connection
    /// is not an error.
    pub async fn serve(
        self,
        config: &Config,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), ServeError> {
        let (drain, close) = (Drain::default(), CancellationToken::new());
        // All tasks and connections end when this future ends, even if it is dropped.
        let _guards = [&drain.started, &drain.expired, &close].map(|token| token.clone().drop_guard());
        let reporter = health::create_reporter(&self.health).await;
        let limits = MessageLimits::new(config);
        let server = transport(&config.server)?
            .layer(self.layers(config, limits, &drain))
            .add_routes(self.routes(config, limits, reporter.clone())?);
        let incoming = accepted(listener, Limits::new(&config.server, &self.metrics, close.clone()));
        let signal = self.start_drain_after(shutdown, &drain);
        tokio::select! {
            served = server.serve_with_incoming_shutdown(incoming, signal) => {
                served.map_err(ServeError::Transport)
            }
            never = self.run_beside(config, &reporter, &drain, &close) => match never {},
        }
    }

    /// Waits for the shutdown and starts the drain.
    async fn start_drain_after(&self, shutdown: impl Future<Output = ()> + Send, drain: &Drain) {
        shutdown.await;
        // Health first, so that load balancers detect the drain before clients are asked to close connections.
        self.health.start_draining();
        drain.started.cancel();
    }

    /// Runs the tasks beside the server. Never ends.
    async fn run_beside(
        &self,
        config: &Config,
        reporter: &HealthReporter,
        drain: &Drain,
        close: &CancellationToken,
    ) -> Infallible {
        tokio::join!(
            health::report_changes(&self.health, reporter),
            Arc::clone(&self.authenticator).refresh_keys_until(drain.started.clone()),
            end_drain(drain, close, config.server.drain_timeout()),
        );
        std::future::pending().await
    }

    /// Returns the layers around the routes, the outermost one first.
    fn layers(
        &self,
        config: &Config,
        limits: MessageLimits,
        drain: &Drain,
    ) -> impl Layer<Routes, Service: Inner> + Clone + use<> {
        let shared = self.shared_limits(config, limits);
        (
            // Outside all others, whose clean-up belongs to the call.
            AroundLayer(RunningCalls(Arc::clone(&self.app))),
            // Every error and every line of the log below has the id.
            AroundLayer(CallId {
                ids: Arc::clone(self.app.ids()),
                proxies: TrustedProxies::new(&config.server),
            }),
            // The layers below log inside the span of the request.
            AroundLayer(Trace),
            // Outside all layers that reject requests, so that rejected requests and panics are counted too.
            AroundLayer(Measure(self.metrics.clone())),
            // Inside the metrics, so that an error is counted under its final code.
            AroundLayer(DetailedErrors(limits)),
            // Before authentication, whose token may be what is too large.
            AroundLayer(header_limit(&config.server)),
            // Inside id, span and metrics, so that a panic is logged and counted.
            AroundLayer(PanicBarrier),
            // Before anything expensive: a token is verified only if its request may run.
            AroundLayer(shared.in_flight),
            // Around authentication, which may read the tenant from the database.
            AroundLayer(Deadline {
                deadlines: config.deadlines.clone(),
                part_pace: PaceLimits::of_upload(&config.uploads),
                drain: drain.clone(),
            }),
            // The last check of the caller: the layers below see verified principals and anonymous methods only.
            AroundLayer(Auth { app: Arc::clone(&self.app), authenticator: Arc::clone(&self.authenticator) }),
            // After authentication: the shares and rates belong to verified callers.
            AroundLayer(Admit(Arc::clone(&self.app))),
            // Outside the layers below, which can refuse a call that its use case has accepted.
            AroundLayer(FirstCalls),
            // After admission, whose holder takes the space. Inside the deadline, which ends when a response is
            // known: a client may read slowly.
            AroundLayer(shared.unread_responses),
            // Inside authentication, which determines the tenant.
            AroundLayer(Suspension(Arc::clone(&self.app))),
            // Only verified callers take memory for their messages.
            AroundLayer(shared.message_budget),
            // Innermost: around the code that decodes messages.
            AroundLayer(shared.decoded_messages),
        )
    }

    /// Creates the limits that all requests share, and reports their use.
    fn shared_limits(&self, config: &Config, limits: MessageLimits) -> SharedLimits {
        let part_bytes_max = config.uploads.part_message_bytes_max();
        let shared = SharedLimits {
            in_flight: InFlight::new(config),
            unread_responses: UnreadResponses::new(config),
            message_budget: MessageBudget::new(
                config.uploads.decode_permits,
                limits,
                ArrivalLimits::new(config),
            ),
            decoded_messages: DecodedMessages::new(config.decoded_bytes_max(), part_bytes_max),
        };
        let SharedLimits { in_flight, unread_responses, message_budget, decoded_messages } = shared.clone();
        self.metrics.observe_shares("requests", move || in_flight.status().into());
        self.metrics.observe_shares("responses", move || unread_responses.status().into());
        self.metrics.observe_shares("messages", move || message_budget.status().into());
        self.metrics.observe_shares("decoded_messages", move || decoded_messages.status().into());
        shared
    }

    fn routes(
        &self,
        config: &Config,
        limits: MessageLimits,
        reporter: HealthReporter,
    ) -> Result<Routes, ServeError> {
        let message_bytes_max = limits.file_message_bytes_max;
        let streams = UploadStreams::new(config.uploads.clone(), message_bytes_max);
        let observed = streams.clone();
        self.metrics.observe_shares("uploads", move || observed.status().into());
        let downloads = Downloads::new(config.downloads.clone(), self.metrics.clone());
        let shares = Shares { app: Arc::clone(&self.app), downloads: downloads.clone() };
        let files = Files { app: Arc::clone(&self.app), uploads: streams.clone(), downloads };
        // tonic's limits bound the size after decompression. Before it, the message budget has a limit per
        // method.
        let mut routes = Routes::new(
            FileServiceServer::new(files)
                .accept_compressed(CompressionEncoding::Gzip)
                .max_decoding_message_size(message_bytes_max),
        )
        .add_service(
            UploadServiceServer::new(Uploads { app: Arc::clone(&self.app), streams })
                .accept_compressed(CompressionEncoding::Gzip)
                .max_decoding_message_size(limits.bytes_max()),
        )
        .add_service(
            ImportServiceServer::new(Imports { app: Arc::clone(&self.app), message_bytes_max })
                .accept_compressed(CompressionEncoding::Gzip)
                .max_decoding_message_size(message_bytes_max),
        )
        .add_service(small_messages!(EventServiceServer::new(Events(Arc::clone(&self.app)))))
        .add_service(small_messages!(QuotaServiceServer::new(Quotas(Arc::clone(&self.app)))))
        .add_service(small_messages!(PolicyServiceServer::new(Policies(Arc::clone(&self.app)))))
        .add_service(small_messages!(TenantServiceServer::new(Tenants(Arc::clone(&self.app)))))
        .add_service(small_messages!(ShareServiceServer::new(shares)))
        .add_service(small_messages!(WebhookServiceServer::new(Webhooks(Arc::clone(&self.app)))))
        .add_service(small_messages!(ServiceInfoServiceServer::new(ServiceInfos {
            app: Arc::clone(&self.app),
            transport: transport_limits(config),
        })))
        .add_service(
            HealthServer::new(HealthService::from_health_reporter(reporter))
                .accept_compressed(CompressionEncoding::Gzip)
                .max_decoding_message_size(MessageLimits::ANONYMOUS_BYTES_MAX),
        );
        if config.server.reflection {
            let describe = || {
                tonic_reflection::server::Builder::configure()
                    .register_encoded_file_descriptor_set(proto::DESCRIPTOR_SET)
                    .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            };
            let v1 = describe().build_v1().map_err(ServeError::Reflection)?;
            let v1alpha = describe().build_v1alpha().map_err(ServeError::Reflection)?;
            routes = routes
                .add_service(v1.max_decoding_message_size(MessageLimits::ANONYMOUS_BYTES_MAX))
                .add_service(v1alpha.max_decoding_message_size(MessageLimits::ANONYMOUS_BYTES_MAX));
        }
        Ok(routes.prepare())
    }
}

/// How long calls that are ended by a drain have to send their status.
const STATUS_GRACE: Duration = Duration::from_secs(1);

fn transport_limits(config: &Config) -> TransportLimits {
    TransportLimits {
        message_bytes_max: config.server.message_size_max_bytes,
        part_message_bytes_max: config.uploads.part_message_bytes_max(),
        small_message_bytes_max: MessageLimits::SMALL_BYTES_MAX,
        header_list_bytes_max: config.server.http2.header_list_size_max_bytes,
    }
}

fn header_limit(config: &ServerConfig) -> HeaderLimit {
    HeaderLimit(config.http2.header_list_size_max_bytes)
}

/// Ends the calls that are still in flight when the time for a drain has passed, then closes all connections.
async fn end_drain(drain: &Drain, close: &CancellationToken, limit: Duration) {
    drain.started.cancelled().await;
    sleep(limit).await;
    tracing::warn!(drain_seconds = limit.as_secs(), "ended calls that did not finish within the drain time");
    drain.expired.cancel();
    wait_for_peer(STATUS_GRACE).await;
    close.cancel();
}

/// The transport, with every limit that tonic has: without a value, tonic disables the default of hyper.
///
/// tonic cannot limit the bytes that hyper buffers to send per stream (400 KiB by default), and the table of
/// compressed headers (4 KiB by default). Not used on purpose: `concurrency_limit_per_connection` (it queues;
/// `InFlight` refuses), `timeout` (it ends at the headers of the response; `Deadline` does not), the adaptive
/// window (it overrides the windows below), `max_connection_age_grace` (tonic then closes a connection
/// without asking the client to close it; `Connection` has the grace), nodelay and TCP keepalive (they apply
/// to listeners of tonic; `Connection` sets nodelay, and HTTP/2 pings replace the keepalive).
fn transport(config: &ServerConfig) -> Result<Server, ServeError> {
    let http2 = &config.http2;
    let mut server = Server::builder()
        .accept_http1(false)
        .max_concurrent_streams(http2.max_concurrent_streams)
        .max_frame_size(http2.frame_size_max_bytes)
        .initial_stream_window_size(http2.stream_window_bytes)
        .initial_connection_window_size(http2.connection_window_bytes)
        .http2_adaptive_window(Some(false))
        .http2_keepalive_interval(Some(http2.keepalive_interval()))
        .http2_keepalive_timeout(Some(http2.keepalive_timeout()))
        .http2_max_header_list_size(header_limit(config).transport_bytes_max())
        .http2_max_pending_accept_reset_streams(Some(http2.pending_accept_reset_streams_max))
        .http2_max_local_error_reset_streams(Some(http2.local_error_reset_streams_max));
    if let Some(age) = config.connection_age_max() {
        server = server.max_connection_age(age);
    }
    match tls(&config.tls, config)? {
        Some(tls) => server.tls_config(tls).map_err(ServeError::Transport),
        None => Ok(server),
    }
}

fn tls(files: &TlsConfig, config: &ServerConfig) -> Result<Option<ServerTlsConfig>, ServeError> {
    let Some((certificate, key)) = files.files() else { return Ok(None) };
    let read = |path: &std::path::Path| {
        std::fs::read(path).map_err(|source| ServeError::TlsFile { path: path.to_owned(), source })
    };
    let identity = Identity::from_pem(read(certificate)?, read(key)?);
    // A handshake may take as long as a ping.
    let timeout = config.http2.keepalive_timeout();
    Ok(Some(ServerTlsConfig::new().identity(identity).timeout(timeout)))
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
