//! The owner marker. With a bucket per tenant, it has a bucket of its own, because it belongs to all tenants.

use bytes::Bytes;
use http::Method;

use super::{
    super::{MarkerWrite, Payload, StorageError, StorageErrorKind, marker::marker_name},
    client::{Client, Request},
    headers,
    objects::{attach_body, is_missing_tenant_bucket},
};

/// Returns the bucket of the marker. Listings skip the bucket of a store with a bucket per tenant, because
/// its name has no tenant.
fn marker_bucket(client: &Client) -> String {
    match client.options.bucket_per_tenant {
        true => format!("{}-owner", client.options.bucket),
        false => client.options.bucket.clone(),
    }
}

pub(super) async fn read(client: &Client, prefix: &str) -> Result<Option<Bytes>, StorageError> {
    match client.send(Request::new(Method::GET, marker_bucket(client), marker_name(prefix))).await {
        Ok(response) => Ok(Some(response.body)),
        Err(failure)
            if failure.kind() == StorageErrorKind::NotFound || is_missing_tenant_bucket(client, &failure) =>
        {
            Ok(None)
        }
        Err(failure) => Err(failure.into_store_error("read owner marker")),
    }
}

pub(super) async fn write(
    client: &Client,
    prefix: &str,
    body: Bytes,
    write: MarkerWrite,
) -> Result<(), StorageError> {
    let mut request = Request::new(Method::PUT, marker_bucket(client), marker_name(prefix))
        .headers(headers::encryption_headers(&client.options))
        .header("content-type", "application/json");
    if client.options.conditional_writes && write == MarkerWrite::Create {
        request = request.header("if-none-match", "*");
    }
    let request = attach_body(client, request, Payload::from(body));
    client.write(request).await.map_err(|failure| failure.into_store_error("write owner marker"))?;
    client.record_write();
    Ok(())
}
