//! The server: its transport with every limit set, and the stack of layers in reading order.

use std::{path::PathBuf, sync::Arc};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{
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
    events::Events,
    files::Files,
    health,
    imports::Imports,
    layers::{Deadline, InFlight, Measure, MessageBudget, PanicBarrier, RequestId, Stand, Trace},
    policies::Policies,
    quotas::Quotas,
    service_info::ServiceInfos,
    tenants::Tenants,
    uploads::{UploadStreams, Uploads},
    webhooks::Webhooks,
};
use crate::{
    app::{App, service_info::TransportLimits},
    config::{Config, ServerConfig, server::TlsConfig},
    proto::{
        self,
        admin::v1::tenant_service_server::TenantServiceServer,
        v1::{
            event_service_server::EventServiceServer, file_service_server::FileServiceServer,
            import_service_server::ImportServiceServer, policy_service_server::PolicyServiceServer,
            quota_service_server::QuotaServiceServer, service_info_service_server::ServiceInfoServiceServer,
            upload_service_server::UploadServiceServer, webhook_service_server::WebhookServiceServer,
        },
    },
    telemetry::{Health, Metrics},
};

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
        let (draining, cut) = (CancellationToken::new(), CancellationToken::new());
        // However this ends, also by being dropped, nothing of it stays behind.
        let (_draining, _cut) = (draining.clone().drop_guard(), cut.clone().drop_guard());
        let reporter = health::begin(&self.health).await;
        let routes = self.routes(config, reporter.clone())?;
        let incoming = accepted(listener, Limits::new(&config.server, cut.clone()));
        let signal = async {
            shutdown.await;
            // First health: whoever balances load learns of it before connections are asked to close.
            self.health.start_draining();
            draining.cancel();
        };
        let serving = async {
            transport(&config.server)?
                // So that every error and every log line further in has an id; also the peer's address.
                .layer(Stand(RequestId(Arc::clone(self.app.ids()))))
                // So that what the layers below log stands in the request's span, with its trace.
                .layer(Stand(Trace))
                // Before anything that refuses: refusals and panics count as well.
                .layer(Stand(Measure(self.metrics.clone())))
                // Inside id, span and measure, so that a panic is answered, logged and counted as what it is.
                .layer(Stand(PanicBarrier))
                // Before anything that costs: a token is verified only where there is room for its request.
                .layer(Stand(InFlight::new(config.server.requests_max)))
                // Around authentication too: finding the tenant may ask the database.
                .layer(Stand(Deadline { deadlines: config.deadlines.clone(), draining: draining.clone() }))
                // The last who may say no: whoever comes further is a verified principal, or calls what is
                // open.
                .layer(Stand(Auth {
                    app: Arc::clone(&self.app),
                    authenticator: Arc::clone(&self.authenticator),
                }))
                // Innermost: only verified callers take room for their messages.
                .layer(Stand(MessageBudget::new(
                    config.uploads.decode_permits,
                    config.server.message_size_max_bytes,
                    config.uploads.part_message_bytes_max(),
                )))
                .add_routes(routes)
                .serve_with_incoming_shutdown(incoming, signal)
                .await
                .map_err(ServeError::Transport)
        };
        let beside = async {
            tokio::join!(
                health::follow(&self.health, &reporter),
                Arc::clone(&self.authenticator).keep_keys_fresh(draining.clone()),
                cut_after_drain(&draining, &cut, config.server.drain_timeout()),
            );
            std::future::pending().await
        };
        tokio::select! {
            served = serving => served,
            never = beside => never,
        }
    }

    fn routes(&self, config: &Config, reporter: HealthReporter) -> Result<Routes, ServeError> {
        let streams = UploadStreams::new(config.uploads.clone());
        let files = Files {
            app: Arc::clone(&self.app),
            uploads: streams.clone(),
            downloads: Downloads::new(config.downloads.clone(), self.metrics.clone()),
        };
        let message_bytes_max = config.server.message_size_max_bytes;
        // The message budget limits every message except parts to `server.message_size_max_bytes`.
        let part_bytes_max = message_bytes_max.max(config.uploads.part_message_bytes_max());
        let mut routes =
            Routes::new(FileServiceServer::new(files).max_decoding_message_size(message_bytes_max))
                .add_service(
                    UploadServiceServer::new(Uploads { app: Arc::clone(&self.app), streams })
                        .max_decoding_message_size(part_bytes_max),
                )
                .add_service(
                    ImportServiceServer::new(Imports(Arc::clone(&self.app)))
                        .max_decoding_message_size(message_bytes_max),
                )
                .add_service(
                    EventServiceServer::new(Events(Arc::clone(&self.app)))
                        .max_decoding_message_size(SMALL_MESSAGE_BYTES_MAX),
                )
                .add_service(
                    QuotaServiceServer::new(Quotas(Arc::clone(&self.app)))
                        .max_decoding_message_size(SMALL_MESSAGE_BYTES_MAX),
                )
                .add_service(
                    PolicyServiceServer::new(Policies(Arc::clone(&self.app)))
                        .max_decoding_message_size(SMALL_MESSAGE_BYTES_MAX),
                )
                .add_service(
                    TenantServiceServer::new(Tenants(Arc::clone(&self.app)))
                        .max_decoding_message_size(SMALL_MESSAGE_BYTES_MAX),
                )
                .add_service(
                    WebhookServiceServer::new(Webhooks(Arc::clone(&self.app)))
                        .max_decoding_message_size(SMALL_MESSAGE_BYTES_MAX),
                )
                .add_service(
                    ServiceInfoServiceServer::new(ServiceInfos {
                        app: Arc::clone(&self.app),
                        transport: transport_limits(config),
                    })
                    .max_decoding_message_size(SMALL_MESSAGE_BYTES_MAX),
                )
                .add_service(
                    HealthServer::new(HealthService::from_health_reporter(reporter))
                        .max_decoding_message_size(SMALL_MESSAGE_BYTES_MAX),
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
                .add_service(v1.max_decoding_message_size(SMALL_MESSAGE_BYTES_MAX))
                .add_service(v1alpha.max_decoding_message_size(SMALL_MESSAGE_BYTES_MAX));
        }
        Ok(routes.prepare())
    }
}

/// The largest message to a service that takes no file data, in bytes.
const SMALL_MESSAGE_BYTES_MAX: usize = 64 * 1024;

fn transport_limits(config: &Config) -> TransportLimits {
    TransportLimits {
        message_bytes_max: config.server.message_size_max_bytes,
        part_message_bytes_max: config.uploads.part_message_bytes_max(),
        small_message_bytes_max: SMALL_MESSAGE_BYTES_MAX,
        header_list_bytes_max: config.server.http2.header_list_size_max_bytes,
    }
}

async fn cut_after_drain(draining: &CancellationToken, cut: &CancellationToken, drain: std::time::Duration) {
    draining.cancelled().await;
    tokio::time::sleep(drain).await;
    tracing::warn!("requests that outlived the drain are cut");
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
