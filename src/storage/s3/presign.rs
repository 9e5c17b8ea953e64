//! Signs URLs for direct uploads.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{
    HeaderMap, HeaderValue, Method,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use object_store::{
    ClientOptions,
    aws::{AmazonS3, AmazonS3Builder},
    client::{HttpClient, HttpConnector},
    path::Path,
    signer::{SignedUrlOptions, Signer},
};

use super::{
    super::{PresignRequest, PresignedUrl, StorageError},
    client::Client,
    errors::Failure,
    headers,
};
use crate::domain::object_key::ObjectKey;

const OPERATION: &str = "presign";
/// The maximum lifetime that stores accept.
const EXPIRY_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// The number of buckets whose signer is cached. Creating a signer takes microseconds.
const CACHED_SIGNERS_MAX: usize = 1_024;

/// The cached signers by bucket.
#[derive(Debug, Default)]
pub(super) struct Signers(Mutex<HashMap<String, Arc<AmazonS3>>>);

pub(super) async fn presign(
    client: &Client,
    signers: &Signers,
    request: &PresignRequest,
) -> Result<PresignedUrl, StorageError> {
    let (PresignRequest::Get { key, expires_in, .. }
    | PresignRequest::Put { key, expires_in, .. }
    | PresignRequest::Part { key, expires_in, .. }) = request;
    if !(Duration::from_secs(1)..=EXPIRY_MAX).contains(expires_in) {
        let reason =
            format!("expiry is {} s; the limits are 1 and {} s", expires_in.as_secs(), EXPIRY_MAX.as_secs());
        return Err(StorageError::invalid_input(OPERATION, reason).with_key(key));
    }
    let mut query: Vec<(&str, String)> = Vec::new();
    let mut signed_headers = HeaderMap::new();
    let method = match request {
        PresignRequest::Get { content_type, content_disposition, .. } => {
            query.extend(content_type.iter().map(|value| ("response-content-type", value.clone())));
            let disposition = content_disposition.iter();
            query.extend(disposition.map(|value| ("response-content-disposition", value.clone())));
            Method::GET
        }
        PresignRequest::Put { content_type, size_bytes, .. } => {
            signed_headers = headers::encryption_headers(&client.options);
            signed_headers.insert(CONTENT_LENGTH, HeaderValue::from(*size_bytes));
            if let Some(content_type) = content_type {
                let value = HeaderValue::from_str(content_type).ok().filter(|_| content_type.is_ascii());
                let value = value.ok_or_else(|| {
                    let reason = format!("`{content_type}` is not a valid content type");
                    StorageError::invalid_input(OPERATION, reason)
                })?;
                signed_headers.insert(CONTENT_TYPE, value);
            }
            Method::PUT
        }
        PresignRequest::Part { multipart, number, size_bytes, .. } => {
            signed_headers.insert(CONTENT_LENGTH, HeaderValue::from(*size_bytes));
            query.push(("partNumber", number.to_string()));
            query.push(("uploadId", multipart.as_str().to_owned()));
            Method::PUT
        }
    };
    if method == Method::PUT {
        // The holder of the URL is not allowed to create the bucket.
        let bucket = client.bucket_of(key);
        client.ensure_bucket(&bucket).await.map_err(|failure| failure.into_error(OPERATION, key))?;
    }
    let mut options = SignedUrlOptions::default().with_query(query);
    options.signed_headers = signed_headers;
    sign(client, signers, key, method, *expires_in, &options).await
}

async fn sign(
    client: &Client,
    signers: &Signers,
    key: &ObjectKey,
    method: Method,
    expires_in: Duration,
    options: &SignedUrlOptions,
) -> Result<PresignedUrl, StorageError> {
    let at = |error| Failure::Credentials(error).into_error(OPERATION, key);
    let signer = signers.get_or_create(client, &client.bucket_of(key)).map_err(at)?;
    let path = Path::from(key.as_str());
    let url = signer.signed_url_opts(method.clone(), &path, expires_in, options).await.map_err(at)?;
    let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
    let headers = options.signed_headers.iter().filter(|(name, _)| **name != CONTENT_LENGTH);
    let headers = headers.map(|(name, value)| (name.to_string(), text(value))).collect();
    Ok(PresignedUrl { url, method: if method == Method::GET { "GET" } else { "PUT" }, headers })
}

impl Signers {
    fn get_or_create(&self, client: &Client, bucket: &str) -> Result<Arc<AmazonS3>, object_store::Error> {
        let mut signers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(signer) = signers.get(bucket) {
            return Ok(Arc::clone(signer));
        }
        let options = &client.options;
        let mut endpoint = client.bucket_url(bucket);
        if !options.virtual_hosted_style {
            endpoint = client.bucket_url("");
        }
        let signer = AmazonS3Builder::new()
            .with_endpoint(endpoint)
            .with_virtual_hosted_style_request(options.virtual_hosted_style)
            .with_region(&options.region)
            .with_bucket_name(bucket)
            .with_credentials(Arc::clone(&client.credentials))
            .with_allow_http(options.allow_http)
            .with_http_connector(SharedConnector(client.http().clone()))
            .build()?;
        if signers.len() >= CACHED_SIGNERS_MAX {
            signers.clear();
        }
        let signer = Arc::new(signer);
        signers.insert(bucket.to_owned(), Arc::clone(&signer));
        Ok(signer)
    }
}

/// Provides the existing HTTP client. A signer requires a client but never uses it.
#[derive(Debug)]
struct SharedConnector(HttpClient);

impl HttpConnector for SharedConnector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(self.0.clone())
    }
}
