//! The server: its transport with every limit set, and the stack of layers in reading order.

use std::{path::PathBuf, sync::Arc, time::Duration};

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

use super::{
    auth::{Authenticator, layer::Auth},
    connections::{Limits, accepted},
    downloads::Downloads,
    files::Files,
    health,
    layers::{
        CallId, Deadline, DetailedErrors, Drain, InFlight, Measure, MessageBudget, PanicBarrier, Stand, Trace,
    },
    message_limits::MessageLimits,
    policies::Policies,
    quotas::Quotas,
    tenants::Tenants,
    uploads::Uploads,
    webhooks::Webhooks,
};
use crate::{
    app::App,
    config::{Config, ServerConfig, server::TlsConfig},
    proto::{
        self,
        admin::v1::tenant_service_server::TenantServiceServer,
        v1::{
            file_service_server::FileServiceServer, policy_service_server::PolicyServiceServer,
            quota_service_server::QuotaServiceServer, webhook_service_server::WebhookServiceServer,
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

/// What the server is made of.
pub struct GrpcServer {
    /// The use cases.
    pub app: Arc<App>,
    /// Who is calling.
    pub authenticator: Arc<Authenticator>,
    /// Read by the health service; told when this server drains.
    pub health: Health,
    /// Counts requests and downloaded bytes.
    pub metrics: Metrics,
}

/// Why the server does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Certificate or key cannot be read.
    #[error("read {}", path.display())]
    TlsFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The transport refused its settings (mostly: certificate and key do not fit), or failed.
    #[error("serve gRPC")]
    Transport(#[source] tonic::transport::Error),
    /// The descriptor set cannot be served.
    #[error("build reflection service")]
    Reflection(#[source] tonic_reflection::server::Error),
}

impl GrpcServer {
    /// Serves until `shutdown` is done and the requests in flight have ended, at most `server.drain_seconds`
    /// later; what runs on after that is cut. The caller binds the listener (to `server.listen`), so that it
    /// knows the port before anyone can ask.
    ///
    /// # Errors
    /// When TLS or reflection cannot be set up, or the transport fails; a broken connection is not an error.
    pub async fn serve(
        self,
        config: &Config,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), ServeError> {
        let (drain, cut) = (Drain::default(), CancellationToken::new());
        // However this ends, also by being dropped, all tasks and connections end.
        let _guards = [&drain.begun, &drain.over, &cut].map(|token| token.clone().drop_guard());
        let reporter = health::begin(&self.health).await;
        let limits = MessageLimits::new(config);
        let routes = self.routes(config, limits, reporter.clone())?;
        let incoming = accepted(listener, Limits::new(&config.server, cut.clone()));
        let signal = async {
            shutdown.await;
            // Health first: load balancers learn of the drain before connections are asked to close.
            self.health.drain();
            drain.begun.cancel();
        };
        let serving = async {
            transport(&config.server)?
                // So that every error and every log line further in has an id; also the peer's address.
                .layer(Stand(CallId(Arc::clone(self.app.ids()))))
                // So that what the layers below log stands in the request's span, with its trace.
                .layer(Stand(Trace))
                // Before anything that refuses: refusals and panics count as well.
                .layer(Stand(Measure(self.metrics.clone())))
                // Inside the metrics, so that an error is counted under its final code.
                .layer(Stand(DetailedErrors(limits)))
                // Inside id, span and measure, so that a panic is answered, logged and counted as what it is.
                .layer(Stand(PanicBarrier))
                // Before anything that costs: a token is verified only where there is room for its request.
                .layer(Stand(InFlight::new(config.server.requests_max)))
                // Around authentication too: finding the tenant may ask the database.
                .layer(Stand(Deadline { deadlines: config.deadlines.clone(), drain: drain.clone() }))
                // The last who may say no: whoever comes further is a verified principal, or calls what is
                // open.
                .layer(Stand(Auth {
                    app: Arc::clone(&self.app),
                    authenticator: Arc::clone(&self.authenticator),
                }))
                // Innermost: only verified callers take room for their messages.
                .layer(Stand(MessageBudget::new(config.uploads.decode_permits, limits)))
                .add_routes(routes)
                .serve_with_incoming_shutdown(incoming, signal)
                .await
                .map_err(ServeError::Transport)
        };
        let beside = async {
            tokio::join!(
                health::follow(&self.health, &reporter),
                Arc::clone(&self.authenticator).keep_keys_fresh(drain.begun.clone()),
                end_drain(&drain, &cut, config.server.drain()),
            );
            std::future::pending().await
        };
        tokio::select! {
            served = serving => served,
            never = beside => never,
        }
    }

    fn routes(
        &self,
        config: &Config,
        limits: MessageLimits,
        reporter: HealthReporter,
    ) -> Result<Routes, ServeError> {
        let files = Files {
            app: Arc::clone(&self.app),
            uploads: Uploads::new(config.uploads.clone(), limits.file_message_bytes_max),
            downloads: Downloads::new(config.downloads.clone(), self.metrics.clone()),
        };
        // tonic's limits bound the size after decompression. Before it, the message budget has a limit per method.
        let mut routes = Routes::new(
            FileServiceServer::new(files)
                .accept_compressed(CompressionEncoding::Gzip)
                .max_decoding_message_size(limits.bytes_max()),
        )
        .add_service(small_messages!(QuotaServiceServer::new(Quotas(Arc::clone(&self.app)))))
        .add_service(small_messages!(PolicyServiceServer::new(Policies(Arc::clone(&self.app)))))
        .add_service(small_messages!(TenantServiceServer::new(Tenants(Arc::clone(&self.app)))))
        .add_service(small_messages!(WebhookServiceServer::new(Webhooks(Arc::clone(&self.app)))))
        .add_service(small_messages!(HealthServer::new(HealthService::from_health_reporter(reporter))));
        if config.server.reflection {
            let describe = || {
                tonic_reflection::server::Builder::configure()
                    .register_encoded_file_descriptor_set(proto::DESCRIPTOR_SET)
                    .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            };
            let v1 = describe().build_v1().map_err(ServeError::Reflection)?;
            let v1alpha = describe().build_v1alpha().map_err(ServeError::Reflection)?;
            routes = routes
                .add_service(v1.max_decoding_message_size(MessageLimits::SMALL_BYTES_MAX))
                .add_service(v1alpha.max_decoding_message_size(MessageLimits::SMALL_BYTES_MAX));
        }
        Ok(routes.prepare())
    }
}

/// How long calls that are ended by a drain have to send their status.
const STATUS_GRACE: Duration = Duration::from_secs(1);

/// Ends the calls that are still in flight when the time for a drain has passed, then cuts all connections.
async fn end_drain(drain: &Drain, cut: &CancellationToken, limit: Duration) {
    drain.begun.cancelled().await;
    sleep(limit).await;
    tracing::warn!(drain_seconds = limit.as_secs(), "ended calls that outlived the drain");
    drain.over.cancel();
    sleep(STATUS_GRACE).await;
    cut.cancel();
}

/// The transport, with every limit that tonic has set: it hands hyper "none" for those it is not told.
///
/// What it does not have: a bound on what hyper buffers to be sent per stream (hyper's own is 400 KiB), and
/// on the table of compressed headers (h2's own is 4 KiB). What is left out on purpose:
/// `concurrency_limit_per_connection` (it queues; `InFlight` refuses), `timeout` (it ends at the response's
/// headers; `Deadline` does not), the adaptive window (it would overrule the windows below),
/// `max_connection_age_grace` (with it tonic cuts a connection without ever asking it to close; `Connection`
/// keeps the grace), nodelay and TCP keepalive (they are for listeners of tonic's own; `Connection` sets the
/// one, HTTP/2's pings replace the other).
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
        .http2_max_header_list_size(http2.header_list_size_max_bytes)
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
    // A handshake is an exchange like a ping, and gets its time.
    let timeout = config.http2.keepalive_timeout();
    Ok(Some(ServerTlsConfig::new().identity(identity).timeout(timeout)))
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
