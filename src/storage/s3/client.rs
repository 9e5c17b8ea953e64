//! One request to the store: its address, its signature, its answer. Signing and credentials are
//! `object_store`'s; its own requests are not used, because they hide the store's status and code, and refuse a
//! listing that holds a name which is none of ours.

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

/// More than any answer but a download has: a page of a thousand names takes about a third of a megabyte.
const ANSWER_SIZE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Idle connections that are kept for the next burst of parts.
const IDLE_CONNECTIONS_MAX: usize = 64;

/// What is sent.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) bucket: String,
    /// Empty: the bucket itself.
    pub(super) key: String,
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) headers: HeaderMap,
    pub(super) body: Payload,
}

impl Call {
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

    /// A value that no header can carry is left out; ours never are.
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

/// What came back, as a whole.
pub(super) struct Answer {
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
    /// A write has worked, so there is no need to try one for readiness.
    pub(super) has_written: AtomicBool,
    /// Tenants' buckets that are there.
    pub(super) known_buckets: Mutex<HashSet<String>>,
}

impl Client {
    pub(super) fn open(options: S3Options) -> Result<Self, StorageError> {
        let refused = |reason: String| StorageError::invalid("open storage", reason);
        let address = match &options.endpoint {
            Some(endpoint) => endpoint.clone(),
            None => format!("https://s3.{}.amazonaws.com", options.region),
        };
        let endpoint: Url =
            address.parse().map_err(|error| refused(format!("the endpoint is no URL: {error}")))?;
        let is_plain = endpoint.scheme() == "http";
        if !matches!(endpoint.scheme(), "http" | "https") || endpoint.host_str().is_none() {
            return Err(refused("the endpoint begins with https:// or http://".to_owned()));
        }
        if is_plain && !options.allow_http {
            return Err(refused(
                "the endpoint is plain http, which allow_http would have to allow".to_owned(),
            ));
        }
        let signs_payload = match options.payload_signing {
            PayloadSigning::Auto => is_plain,
            PayloadSigning::Always => true,
            PayloadSigning::Never => false,
        };
        let http = HttpClient::new(http_client(&options)?);
        let credentials = credentials(&options)?;
        Ok(Self {
            options,
            http,
            credentials,
            endpoint,
            signs_payload,
            has_written: AtomicBool::new(false),
            known_buckets: Mutex::default(),
        })
    }

    /// Whether a checksum goes along instead of a signed digest.
    pub(super) const fn sends_checksum(&self) -> bool {
        !self.signs_payload
    }

    pub(super) const fn http(&self) -> &HttpClient {
        &self.http
    }

    pub(super) fn note_write(&self) {
        self.has_written.store(true, Ordering::Relaxed);
    }

    /// Sends and takes in the whole answer.
    pub(super) async fn send(&self, call: Call) -> Result<Answer, Failure> {
        let exchange = async {
            let response = self.exchange(call).await?;
            let (parts, body) = response.into_parts();
            Ok(Answer { headers: parts.headers, body: collect(body).await? })
        };
        timeout(self.options.request_timeout, exchange).await.map_err(|_| Failure::Timeout)?
    }

    /// Sends and answers as soon as the answer begins.
    pub(super) async fn begin(&self, call: Call) -> Result<Response<HttpResponseBody>, Failure> {
        let exchange = self.exchange(call);
        timeout(self.options.request_timeout, exchange).await.map_err(|_| Failure::Timeout)?
    }

    async fn exchange(&self, call: Call) -> Result<Response<HttpResponseBody>, Failure> {
        let is_head = call.method == Method::HEAD;
        let request = self.sign(call).await?;
        let response = self.http.execute(request).await.map_err(Failure::Http)?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = if is_head { Bytes::new() } else { collect(response.into_body()).await? };
        Err(Failure::refused(status, &body))
    }

    async fn sign(&self, call: Call) -> Result<HttpRequest, Failure> {
        let address = self.address(&call.bucket, &call.key, &call.query)?;
        let content_length = call.body.len_bytes();
        let digest = match self.signs_payload {
            true => Some(digest::sha256(&call.body).await),
            false => None,
        };
        let body = match content_length {
            0 => HttpRequestBody::empty(),
            _ => HttpRequestBody::from(PutPayload::from_iter(call.body.chunks().iter().cloned())),
        };
        let mut request = HttpRequest::new(body);
        let sends_body = matches!(call.method, Method::PUT | Method::POST);
        *request.method_mut() = call.method;
        *request.uri_mut() = address;
        *request.headers_mut() = call.headers;
        if sends_body {
            request.headers_mut().insert(http::header::CONTENT_LENGTH, content_length.into());
        }
        let credential = self.credentials.get_credential().await.map_err(Failure::Credentials)?;
        AwsAuthorizer::new(&credential, "s3", &self.options.region)
            .with_sign_payload(self.signs_payload)
            .try_authorize(&mut request, digest.as_ref().map(|digest| digest.as_slice()))
            .map_err(Failure::Credentials)?;
        Ok(request)
    }

    /// Keys of ours hold nothing that a path would have to escape; those of others come escaped.
    fn address(&self, bucket: &str, key: &str, query: &[(&'static str, String)]) -> Result<Uri, Failure> {
        let mut address = self.bucket_address(bucket);
        address.push('/');
        address.push_str(key);
        if !query.is_empty() {
            let mut pairs = form_urlencoded::Serializer::new(String::new());
            for (name, value) in query {
                pairs.append_pair(name, value);
            }
            address.push('?');
            // A plus is a space in a form, and a plus to whoever reads a signature.
            address.push_str(&pairs.finish().replace('+', "%20"));
        }
        Uri::try_from(address).map_err(|_| Failure::Garbled("the bucket's name is no part of an address"))
    }

    /// Without a slash at the end. Of no bucket: the store itself.
    pub(super) fn bucket_address(&self, bucket: &str) -> String {
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

async fn collect(body: HttpResponseBody) -> Result<Bytes, Failure> {
    let whole = Limited::new(body, ANSWER_SIZE_BYTES_MAX).collect().await.map_err(Failure::Body)?;
    Ok(whole.to_bytes())
}

fn http_client(options: &S3Options) -> Result<reqwest::Client, StorageError> {
    let refused = |reason: String| StorageError::invalid("open storage", reason);
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
        let pem = fs::read(path).map_err(|error| refused(format!("the CA file cannot be read: {error}")))?;
        let certificates = reqwest::Certificate::from_pem_bundle(&pem)
            .map_err(|error| refused(format!("the CA file holds no certificates: {error}")))?;
        builder = builder.tls_certs_merge(certificates);
    }
    builder.build().map_err(|error| refused(format!("the HTTP client cannot be made: {error}")))
}

fn credentials(options: &S3Options) -> Result<AwsCredentialProvider, StorageError> {
    match &options.credentials {
        S3Credentials::Static { access_key_id, secret_access_key, session_token } => {
            Ok(Arc::new(StaticCredentialProvider::new(AwsCredential {
                key_id: access_key_id.clone(),
                secret_key: secret_access_key.expose_secret().to_owned(),
                token: session_token.as_ref().map(|token| token.expose_secret().to_owned()),
            })))
        }
        // The builder knows every place where credentials may be found; the bucket is only there because it
        // asks for one.
        S3Credentials::Environment => {
            let found = AmazonS3Builder::from_env()
                .with_region(&options.region)
                .with_bucket_name(&options.bucket)
                .build();
            let found = found.map_err(|error| {
                StorageError::invalid("open storage", "no credentials were found in the environment")
                    .with_source(Box::new(error))
            })?;
            Ok(Arc::clone(found.credentials()))
        }
    }
}
