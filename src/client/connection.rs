//! The connection: an HTTP/2 channel with settings for large downloads, and the token on every call.

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
        share_service_client::ShareServiceClient, upload_service_client::UploadServiceClient,
        webhook_service_client::WebhookServiceClient,
    },
};

/// The frame sizes that HTTP/2 allows.
const FRAME_SIZES_BYTES: RangeInclusive<u32> = 16_384..=16_777_215;
/// The largest message accepted. A page of 1,000 files in view FULL is smaller, even if all fields are full.
const MESSAGE_SIZE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long a call may be idle before the client sends an HTTP/2 ping. Without pings, a download from a
/// machine that lost power would hang until TCP times out.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// How long the server may take to acknowledge a ping. After that the connection is closed.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// The server's address, the caller's token and the settings of a connection.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// The server's address: `https://host:port`, or `http://host:port`. Use http only in a trusted network,
    /// because the token is then sent unencrypted.
    pub endpoint: String,
    /// The bearer token, sent with every call. Empty for visitors of shares, who have none.
    pub token: SecretString,
    /// The timeout for establishing a connection. 10 s by default.
    pub connect_timeout: Duration,
    /// The deadline of each attempt of a unary call. Streams have none. 30 s by default.
    pub unary_timeout: Duration,
    /// The certificate authorities to trust, as PEM. If absent, those of the operating system are trusted.
    pub ca_certificates_pem: Option<Vec<u8>>,
    /// The `user-agent` header, which the server logs. `strongroom-client/<version>` by default.
    pub user_agent: String,
    /// The largest HTTP/2 frame that the client accepts. 256 KiB by default; HTTP/2 allows 16,384 to
    /// 16,777,215 bytes.
    ///
    /// The receiver sets the frame size, so this limits the frames of downloads. Compared to the protocol's
    /// default of 16 KiB, 256 KiB more than doubles the throughput at less than half the CPU time.
    pub frame_size_bytes_max: u32,
    /// The HTTP/2 flow-control window of one download. 1 MiB by default. On a link with high latency, set it
    /// to the product of bandwidth and round-trip time.
    pub stream_window_size_bytes: u32,
    /// The HTTP/2 flow-control window of the connection, which limits the buffers of all downloads together.
    /// 2 MiB by default.
    pub connection_window_size_bytes: u32,
    /// When and how often calls are retried.
    pub retry: RetryPolicy,
}

impl ClientOptions {
    /// Creates options with the defaults for a server and a token.
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

    fn build_endpoint(&self) -> Result<Endpoint, ClientError> {
        let endpoint = self.endpoint.as_str();
        let tls = endpoint.starts_with("https://");
        if !tls && !endpoint.starts_with("http://") {
            return Err(invalid_option(format!(
                "server address is {endpoint:?}; it must begin with https:// or http://"
            )));
        }
        if !FRAME_SIZES_BYTES.contains(&self.frame_size_bytes_max) {
            let (min, max) = (FRAME_SIZES_BYTES.start(), FRAME_SIZES_BYTES.end());
            return Err(invalid_option(format!(
                "frame size is {} bytes; HTTP/2 allows {min} to {max} bytes",
                self.frame_size_bytes_max
            )));
        }
        let channel = Endpoint::from_shared(endpoint.to_owned())
            .and_then(|channel| channel.user_agent(self.user_agent.as_str()))
            .map_err(|error| {
                invalid_option(format!("server address {endpoint:?} or user agent is invalid: {error}"))
            })?
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
        channel
            .tls_config(trust)
            .map_err(|error| invalid_option(format!("certificate authorities are invalid: {error}")))
    }
}

fn invalid_option(problem: String) -> ClientError {
    ClientError::Options { problem }
}

/// A connection to one server with the token of one caller. Cloning is cheap, and clones share the
/// connection.
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
    pub(super) shares: ShareServiceClient<Authenticated>,
    pub(super) service_info: ServiceInfoServiceClient<Authenticated>,
    pub(super) tenants: TenantServiceClient<Authenticated>,
}

type Authenticated = InterceptedService<Channel, BearerToken>;

impl Client {
    /// Connects to the server. A connection that breaks later is re-established by the next call.
    ///
    /// # Errors
    /// Returns [`ClientError::Options`] if an option is invalid, and [`ClientError::Transport`] if the server
    /// is unreachable.
    pub async fn connect(options: ClientOptions) -> Result<Self, ClientError> {
        let token = BearerToken::new(&options.token)?;
        let channel = options.build_endpoint()?.connect().await;
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
                shares: ShareServiceClient::with_interceptor(channel.clone(), token.clone())
                    .max_decoding_message_size(MESSAGE_SIZE_BYTES_MAX),
                service_info: ServiceInfoServiceClient::with_interceptor(channel.clone(), token.clone()),
                tenants: TenantServiceClient::with_interceptor(channel, token)
                    .max_decoding_message_size(MESSAGE_SIZE_BYTES_MAX),
            },
            retry: options.retry,
            unary_timeout: options.unary_timeout,
        })
    }

    /// Sends a unary call, with retries. It must be safe to retry: a read, or a change with a request id.
    pub(super) async fn call<M, R, F, Fut>(&self, message: M, send: F) -> Result<R, ClientError>
    where
        M: Clone,
        F: Fn(Services, Request<M>) -> Fut,
        Fut: Future<Output = Result<Response<R>, Status>>,
    {
        self.retry
            .call(|| {
                let mut request = Request::new(message.clone());
                request.set_timeout(self.unary_timeout);
                let response = send(self.services.clone(), request);
                async { response.await.map(Response::into_inner).map_err(ClientError::from_status) }
            })
            .await
    }
}

/// Adds `authorization: Bearer …` to every call. The value is marked sensitive: HTTP/2 does not index it, and
/// `Debug` prints it as `Sensitive`.
#[derive(Debug, Clone)]
pub(super) struct BearerToken(Option<MetadataValue<Ascii>>);

impl BearerToken {
    fn new(token: &SecretString) -> Result<Self, ClientError> {
        if token.expose_secret().is_empty() {
            return Ok(Self(None));
        }
        let value = format!("Bearer {}", token.expose_secret());
        let mut value: MetadataValue<Ascii> = value
            .parse()
            .map_err(|_| invalid_option("token must be one line of visible ASCII characters".to_owned()))?;
        value.set_sensitive(true);
        Ok(Self(Some(value)))
    }
}

impl Interceptor for BearerToken {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}
