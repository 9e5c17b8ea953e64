//! Sends one request to the store. Signing and credentials come from `object_store`. Its own requests are not
//! used, because they hide the store's status and error code, and fail a listing that contains an unexpected
//! name.

use std::{
    collections::HashSet,
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, Uri};
use http_body_util::{BodyExt, Limited};
use object_store::{
    PutPayload,
    aws::{AmazonS3Builder, AwsAuthorizer, AwsCredential, AwsCredentialProvider},
    client::{HttpClient, HttpRequest, HttpRequestBody, HttpResponseBody, StaticCredentialProvider},
};
use secrecy::ExposeSecret;
use tokio::time::timeout;
use url::{Url, form_urlencoded};

use super::{
    super::{Payload, StorageError},
    digest,
    errors::Failure,
    options::{PayloadSigning, S3Credentials, S3Options},
};

/// The maximum size of a response other than a download. A list of 1,000 names takes about 350 KiB.
const RESPONSE_SIZE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The number of idle connections kept open for the next burst of parts.
const IDLE_CONNECTIONS_MAX: usize = 64;

/// A request to the store.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) bucket: String,
    /// The key of the object; empty for the bucket itself.
    pub(super) key: String,
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) headers: HeaderMap,
    pub(super) body: Payload,
}

impl Request {
    pub(super) fn new(method: Method, bucket: impl Into<String>, key: impl Into<String>) -> Self {
        Self {
            method,
            bucket: bucket.into(),
            key: key.into(),
            query: Vec::new(),
            headers: HeaderMap::new(),
            body: Payload::default(),
        }
    }

    pub(super) fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    pub(super) fn headers(mut self, headers: HeaderMap) -> Self {
        self.headers.extend(headers);
        self
    }

    /// Sets a header. Skips a value that is not valid in a header; none of ours is invalid.
    pub(super) fn header(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(HeaderName::from_static(name), value);
        }
        self
    }

    pub(super) fn body(mut self, body: Payload) -> Self {
        self.body = body;
        self
    }
}

/// A response with its whole body.
pub(super) struct CollectedResponse {
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

#[derive(Debug)]
pub(super) struct Client {
    pub(super) options: S3Options,
    http: HttpClient,
    pub(super) credentials: AwsCredentialProvider,
    endpoint: Url,
    signs_payload: bool,
    /// Whether a write has succeeded, so that the readiness check need not write.
    pub(super) has_written: AtomicBool,
    /// Whether the store has rejected a batch deletion as unknown, so that objects are deleted one by one.
    pub(super) lacks_batch_deletion: AtomicBool,
    /// Whether the store verifies the checksum of a whole object, according to its last response.
    pub(super) takes_whole_checksum: AtomicBool,
    /// Whether it was logged that the store does not verify it.
    pub(super) has_logged_checksum: AtomicBool,
    /// Whether it was logged that versions of deleted objects stay.
    pub(super) has_logged_versions: AtomicBool,
    /// Tenant buckets that are known to exist. A cache.
    pub(super) known_buckets: Mutex<HashSet<String>>,
}

impl Client {
    pub(super) fn open(options: S3Options) -> Result<Self, StorageError> {
        let invalid_options = |reason: String| StorageError::invalid_input("open storage", reason);
        let address = match &options.endpoint {
            Some(endpoint) => endpoint.clone(),
            None => format!("https://s3.{}.amazonaws.com", options.region),
        };
        let endpoint: Url = address
            .parse()
            .map_err(|error| invalid_options(format!("the endpoint is not a URL: {error}")))?;
        let is_plain = endpoint.scheme() == "http";
        if !matches!(endpoint.scheme(), "http" | "https") || endpoint.host_str().is_none() {
            return Err(invalid_options("the endpoint must start with https:// or http://".to_owned()));
        }
        if is_plain && !options.allow_http {
            return Err(invalid_options(
                "the endpoint uses plain http; use https, or set allow_http".to_owned(),
            ));
        }
        let signs_payload = match options.payload_signing {
            PayloadSigning::Auto => is_plain,
            PayloadSigning::Always => true,
            PayloadSigning::Never => false,
        };
        let http = HttpClient::new(build_http_client(&options)?);
        let credentials = load_credentials(&options)?;
        Ok(Self {
            options,
            http,
            credentials,
            endpoint,
            signs_payload,
            has_written: AtomicBool::new(false),
            lacks_batch_deletion: AtomicBool::new(false),
            takes_whole_checksum: AtomicBool::new(false),
            has_logged_checksum: AtomicBool::new(false),
            has_logged_versions: AtomicBool::new(false),
            known_buckets: Mutex::default(),
        })
    }

    /// Returns whether requests carry a checksum instead of a signed digest.
    pub(super) const fn sends_checksum(&self) -> bool {
        !self.signs_payload
    }

    pub(super) fn record_write(&self) {
        self.has_written.store(true, Ordering::Relaxed);
    }

    /// Sends a request and reads the whole response.
    pub(super) async fn send(&self, request: Request) -> Result<CollectedResponse, Failure> {
        let response = async {
            let response = self.send_signed(request).await?;
            let (parts, body) = response.into_parts();
            Ok(CollectedResponse { headers: parts.headers, body: collect_body(body).await? })
        };
        timeout(self.options.request_timeout, response).await.map_err(|_| Failure::Timeout)?
    }

    /// Sends a request and returns as soon as the response headers arrive.
    pub(super) async fn send_streaming(
        &self,
        request: Request,
    ) -> Result<Response<HttpResponseBody>, Failure> {
        let response = self.send_signed(request);
        timeout(self.options.request_timeout, response).await.map_err(|_| Failure::Timeout)?
    }

    async fn send_signed(&self, request: Request) -> Result<Response<HttpResponseBody>, Failure> {
        let is_head = request.method == Method::HEAD;
        let request = self.sign(request).await?;
        let response = self.http.execute(request).await.map_err(Failure::Http)?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = if is_head { Bytes::new() } else { collect_body(response.into_body()).await? };
        Err(Failure::rejected(status, &body))
    }

    async fn sign(&self, request: Request) -> Result<HttpRequest, Failure> {
        let address = self.build_url(&request)?;
        let content_length = request.body.len_bytes();
        let digest = match self.signs_payload {
            true => Some(digest::sha256(&request.body).await),
            false => None,
        };
        let body = match content_length {
            0 => HttpRequestBody::empty(),
            _ => HttpRequestBody::from(PutPayload::from_iter(request.body.chunks().iter().cloned())),
        };
        let mut signed = HttpRequest::new(body);
        let sends_body = matches!(request.method, Method::PUT | Method::POST);
        *signed.method_mut() = request.method;
        *signed.uri_mut() = address;
        *signed.headers_mut() = request.headers;
        if sends_body {
            signed.headers_mut().insert(http::header::CONTENT_LENGTH, content_length.into());
        }
        let credential = self.credentials.get_credential().await.map_err(Failure::Credentials)?;
        AwsAuthorizer::new(&credential, "s3", &self.options.region)
            .with_sign_payload(self.signs_payload)
            .try_authorize(&mut signed, digest.as_ref().map(|digest| digest.as_slice()))
            .map_err(Failure::Credentials)?;
        Ok(signed)
    }

    /// Builds the URL. Our own keys need no escaping; keys of import sources are escaped already.
    fn build_url(&self, request: &Request) -> Result<Uri, Failure> {
        let mut address = self.bucket_url(&request.bucket);
        address.push('/');
        address.push_str(&request.key);
        if !request.query.is_empty() {
            let mut pairs = form_urlencoded::Serializer::new(String::new());
            for (name, value) in &request.query {
                pairs.append_pair(name, value);
            }
            address.push('?');
            // A plus sign means a space in form encoding, but a literal plus sign in the signature.
            address.push_str(&pairs.finish().replace('+', "%20"));
        }
        Uri::try_from(address).map_err(|_| Failure::InvalidResponse("the bucket name is not valid in a URL"))
    }

    /// Returns the URL of a bucket without a trailing slash, or that of the store if `bucket` is empty.
    pub(super) fn bucket_url(&self, bucket: &str) -> String {
        let scheme = self.endpoint.scheme();
        let host = &self.endpoint[url::Position::BeforeHost..url::Position::AfterPort];
        let path = self.endpoint.path().trim_end_matches('/');
        match (bucket, self.options.virtual_hosted_style) {
            ("", _) => format!("{scheme}://{host}{path}"),
            (_, true) => format!("{scheme}://{bucket}.{host}{path}"),
            (_, false) => format!("{scheme}://{host}{path}/{bucket}"),
        }
    }
}

async fn collect_body(body: HttpResponseBody) -> Result<Bytes, Failure> {
    let whole = Limited::new(body, RESPONSE_SIZE_BYTES_MAX).collect().await.map_err(Failure::Body)?;
    Ok(whole.to_bytes())
}

fn build_http_client(options: &S3Options) -> Result<reqwest::Client, StorageError> {
    let invalid_options = |reason: String| StorageError::invalid_input("open storage", reason);
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("strongroom/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(options.connect_timeout)
        .read_timeout(options.request_timeout)
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        .tcp_nodelay(true)
        .no_proxy()
        .http1_only();
    if let Some(path) = &options.ca_file {
        let pem = fs::read(path)
            .map_err(|error| invalid_options(format!("failed to read the CA file: {error}")))?;
        let certificates = reqwest::Certificate::from_pem_bundle(&pem)
            .map_err(|error| invalid_options(format!("the CA file contains no certificates: {error}")))?;
        builder = builder.tls_certs_merge(certificates);
    }
    builder.build().map_err(|error| invalid_options(format!("failed to build the HTTP client: {error}")))
}

fn load_credentials(options: &S3Options) -> Result<AwsCredentialProvider, StorageError> {
    match &options.credentials {
        S3Credentials::Static { access_key_id, secret_access_key, session_token } => {
            Ok(Arc::new(StaticCredentialProvider::new(AwsCredential {
                key_id: access_key_id.clone(),
                secret_key: secret_access_key.expose_secret().to_owned(),
                token: session_token.as_ref().map(|token| token.expose_secret().to_owned()),
            })))
        }
        // The builder finds credentials in all standard places. It requires a bucket name, which is not used.
        S3Credentials::Environment => {
            let found = AmazonS3Builder::from_env()
                .with_region(&options.region)
                .with_bucket_name(&options.bucket)
                .build();
            let found = found.map_err(|error| {
                StorageError::invalid_input("open storage", "no credentials found in the environment")
                    .with_source(Box::new(error))
            })?;
            Ok(Arc::clone(found.credentials()))
        }
    }
}
