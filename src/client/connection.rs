//! The connection: an HTTP/2 channel that is set up for large downloads, and the token on every call.

use std::{future::Future, ops::RangeInclusive, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use tonic::{
    Request, Response, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

use super::{error::ClientError, retry::RetryPolicy};
use crate::proto::{
    admin::v1::tenant_service_client::TenantServiceClient,
    v1::{
        event_service_client::EventServiceClient, file_service_client::FileServiceClient,
        import_service_client::ImportServiceClient, policy_service_client::PolicyServiceClient,
        quota_service_client::QuotaServiceClient, service_info_service_client::ServiceInfoServiceClient,
        upload_service_client::UploadServiceClient, webhook_service_client::WebhookServiceClient,
    },
};

/// What HTTP/2 allows a frame to have.
const FRAME_SIZES_BYTES: RangeInclusive<u32> = 16_384..=16_777_215;
/// The largest message accepted: 1,000 files in view FULL with all that each may carry stay below it.
const MESSAGE_SIZE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How often an idle moment of a running call is used to ask whether the server is still there, and how long
/// it has to answer. Without it a download from a machine that lost its power would hang until TCP gives up.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Where to connect, and as whom.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// The server: `https://host:port`, or `http://host:port` where the network itself is trusted, because
    /// the token then travels unencrypted.
    pub endpoint: String,
    /// The bearer token, sent with every call.
    pub token: SecretString,
    /// How long the connection may take. 10 s by default.
    pub connect_timeout: Duration,
    /// The deadline of every call that is not a stream, each try on its own. 30 s by default.
    pub unary_timeout: Duration,
    /// The certificate authorities to trust, as PEM. Absent: those of the operating system.
    pub ca_certificates_pem: Option<Vec<u8>>,
    /// What the server's log shows as the client.
    pub user_agent: String,
    /// The largest HTTP/2 frame this side accepts. The receiver announces it, so for downloads it is ours to say; 256 KiB,
    /// the default, instead of the protocol's 16 KiB more than doubles the throughput at less than half the CPU. HTTP/2
    /// allows 16 KiB to 16 MiB - 1; what lies outside is refused.
    pub frame_size_bytes_max: u32,
    /// The HTTP/2 window of one download. 1 MiB by default; a long fat link wants bandwidth times delay.
    pub stream_window_size_bytes: u32,
    /// The HTTP/2 window of the connection: it bounds what all downloads together may buffer. 2 MiB by
    /// default.
    pub connection_window_size_bytes: u32,
    /// When calls are repeated.
    pub retry: RetryPolicy,
}

impl ClientOptions {
    /// The defaults for one server and token.
    pub fn new(endpoint: impl Into<String>, token: SecretString) -> Self {
        Self {
            endpoint: endpoint.into(),
            token,
            connect_timeout: Duration::from_secs(10),
            unary_timeout: Duration::from_secs(30),
            ca_certificates_pem: None,
            user_agent: concat!("strongroom-client/", env!("CARGO_PKG_VERSION")).to_owned(),
            frame_size_bytes_max: 256 * 1024,
            stream_window_size_bytes: 1024 * 1024,
            connection_window_size_bytes: 2 * 1024 * 1024,
            retry: RetryPolicy::default(),
        }
    }

    fn channel(&self) -> Result<Endpoint, ClientError> {
        let endpoint = self.endpoint.as_str();
        let tls = endpoint.starts_with("https://");
        if !tls && !endpoint.starts_with("http://") {
            return Err(wrong(format!(
                "the server's address {endpoint:?} must begin with https:// or http://"
            )));
        }
        if !FRAME_SIZES_BYTES.contains(&self.frame_size_bytes_max) {
            let (min, max) = (FRAME_SIZES_BYTES.start(), FRAME_SIZES_BYTES.end());
            return Err(wrong(format!(
                "a frame must have {min} to {max} bytes, not {}",
                self.frame_size_bytes_max
            )));
        }
        let channel = Endpoint::from_shared(endpoint.to_owned())
            .and_then(|channel| channel.user_agent(self.user_agent.as_str()))
            .map_err(|error| wrong(format!("the server's address {endpoint:?} or the user agent: {error}")))?
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .initial_stream_window_size(self.stream_window_size_bytes)
            .initial_connection_window_size(self.connection_window_size_bytes)
            .max_frame_size(self.frame_size_bytes_max)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
        if !tls {
            return Ok(channel);
        }
        let trust = match &self.ca_certificates_pem {
            Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        channel.tls_config(trust).map_err(|error| wrong(format!("the certificate authorities: {error}")))
    }
}

fn wrong(what: String) -> ClientError {
    ClientError::Options { what }
}

/// A connection to one server as one caller. Cloning is cheap, and clones share the connection.
#[derive(Debug, Clone)]
pub struct Client {
    pub(super) services: Services,
    pub(super) retry: RetryPolicy,
    unary_timeout: Duration,
}

/// The generated clients over one channel.
#[derive(Debug, Clone)]
pub(super) struct Services {
    pub(super) files: FileServiceClient<Authenticated>,
    pub(super) uploads: UploadServiceClient<Authenticated>,
    pub(super) imports: ImportServiceClient<Authenticated>,
    pub(super) events: EventServiceClient<Authenticated>,
    pub(super) quotas: QuotaServiceClient<Authenticated>,
    pub(super) policies: PolicyServiceClient<Authenticated>,
    pub(super) webhooks: WebhookServiceClient<Authenticated>,
    pub(super) service_info: ServiceInfoServiceClient<Authenticated>,
    pub(super) tenants: TenantServiceClient<Authenticated>,
}

type Authenticated = InterceptedService<Channel, BearerToken>;

impl Client {
    /// Connects, so that a wrong address shows here and not at the first call. A connection that breaks later
    /// is made anew by the next call.
    pub async fn connect(options: ClientOptions) -> Result<Self, ClientError> {
        let token = BearerToken::new(&options.token)?;
        let channel = options.channel()?.connect().await;
        let channel = channel.map_err(|error| ClientError::Transport { source: Box::new(error) })?;
        Ok(Self {
            services: Services {
                files: FileServiceClient::with_interceptor(channel.clone(), token.clone())
                    .max_decoding_message_size(MESSAGE_SIZE_BYTES_MAX),
                uploads: UploadServiceClient::with_interceptor(channel.clone(), token.clone())
                    .max_decoding_message_size(MESSAGE_SIZE_BYTES_MAX),
                imports: ImportServiceClient::with_interceptor(channel.clone(), token.clone()),
                events: EventServiceClient::with_interceptor(channel.clone(), token.clone()),
                quotas: QuotaServiceClient::with_interceptor(channel.clone(), token.clone()),
                policies: PolicyServiceClient::with_interceptor(channel.clone(), token.clone()),
                webhooks: WebhookServiceClient::with_interceptor(channel.clone(), token.clone()),
                service_info: ServiceInfoServiceClient::with_interceptor(channel.clone(), token.clone()),
                tenants: TenantServiceClient::with_interceptor(channel, token)
                    .max_decoding_message_size(MESSAGE_SIZE_BYTES_MAX),
            },
            retry: options.retry,
            unary_timeout: options.unary_timeout,
        })
    }

    /// Sends one call that is safe to repeat: a read, or a change that carries a request id.
    pub(super) async fn call<M, R, F, Fut>(&self, message: M, send: F) -> Result<R, ClientError>
    where
        M: Clone,
        F: Fn(Services, Request<M>) -> Fut,
        Fut: Future<Output = Result<Response<R>, Status>>,
    {
        self.retry
            .run(|| {
                let mut request = Request::new(message.clone());
                request.set_timeout(self.unary_timeout);
                let answer = send(self.services.clone(), request);
                async { answer.await.map(Response::into_inner).map_err(ClientError::from_status) }
            })
            .await
    }
}

/// Puts `authorization: Bearer …` on every call. The value is marked sensitive: HTTP/2 does not index it, and
/// it prints as `Sensitive`.
#[derive(Debug, Clone)]
pub(super) struct BearerToken(MetadataValue<Ascii>);

impl BearerToken {
    fn new(token: &SecretString) -> Result<Self, ClientError> {
        let value = format!("Bearer {}", token.expose_secret());
        let mut value: MetadataValue<Ascii> = value
            .parse()
            .map_err(|_| wrong("the token must be one line of visible ASCII characters".to_owned()))?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

impl Interceptor for BearerToken {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}
