//! The client of a request, as its headers describe it, for the access log.

use http::HeaderMap;
use tonic::metadata::MetadataMap;

use crate::domain::{
    access_log::{ClientOrigin, shorten_text},
    caller::Origin,
};

/// The header in which a client declares why it reads a file.
const PURPOSE: &str = "access-purpose";

/// Describes the client of a request.
pub(super) fn client_origin(metadata: &MetadataMap, origin: Origin) -> ClientOrigin {
    let headers = metadata.as_ref();
    ClientOrigin {
        origin,
        user_agent: text_of(headers, http::header::USER_AGENT.as_str()),
        purpose: text_of(headers, PURPOSE),
    }
}

/// Returns the text of a header, shortened. Bytes that are not UTF-8 are replaced.
fn text_of(headers: &HeaderMap, name: &str) -> String {
    headers
        .get(name)
        .map(|value| shorten_text(&String::from_utf8_lossy(value.as_bytes())))
        .unwrap_or_default()
}
