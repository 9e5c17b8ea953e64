//! Signs URLs for direct uploads.

use std::time::Duration;

use http::{
    HeaderMap, HeaderValue, Method,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};

use super::{
    super::{PresignRequest, PresignedUrl, StorageError},
    client::Client,
    errors::Failure,
    headers,
    signature::SignedRequest,
};
use crate::domain::{
    clock::{Clock as _, SystemClock},
    percent::encode_path,
};

const OPERATION: &str = "presign";
/// The maximum lifetime that stores accept.
const EXPIRY_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
pub(super) async fn presign(client: &Client, request: &PresignRequest) -> Result<PresignedUrl, StorageError> {
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
    let credential = client.credentials.get_credential().await;
    let credential = credential.map_err(|error| Failure::Credentials(error).into_error(OPERATION, key))?;
    let url = format!("{}/{}", client.bucket_url(&client.bucket_of(key)), encode_path(key.as_str()));
    let url = url.parse().map_err(|error: url::ParseError| {
        StorageError::invalid_input(OPERATION, error.to_string()).with_key(key)
    })?;
    let signed = SignedRequest {
        method: &method,
        url,
        query,
        headers: signed_headers.clone(),
        expires_in: *expires_in,
    };
    let url = signed.sign(&credential, &client.options.region, SystemClock.now());
    // Clients set the length by themselves, and many refuse to set it as a header.
    signed_headers.remove(CONTENT_LENGTH);
    let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
    let headers = signed_headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    Ok(PresignedUrl { url, method: if method == Method::GET { "GET" } else { "PUT" }, headers })
}
