//! Calls of attackers: some bytes of a request, and then nothing. The service tests and the end-to-end tests send
//! them.

use bytes::Bytes;
use futures::{StreamExt, stream};
use http_body::Frame;
use http_body_util::StreamBody;
use tonic::{Status, body::Body};

pub(crate) const UPLOAD: &str = "/strongroom.v1.FileService/UploadFile";
pub(crate) const DOWNLOAD: &str = "/strongroom.v1.FileService/DownloadFile";
pub(crate) const CHECK: &str = "/grpc.health.v1.Health/Check";

/// The message size that a chunk of the largest size announces.
pub(crate) const CHUNK_BYTES: u32 = 2 << 20;

/// Encodes a message, without its last bytes if `length` is larger.
pub(crate) fn frame(length: u32, bytes: &[u8]) -> Vec<u8> {
    [&[0], length.to_be_bytes().as_slice(), bytes].concat()
}

/// Encodes a message completely.
pub(crate) fn whole_frame(message: &impl prost::Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    frame(u32::try_from(bytes.len()).unwrap(), &bytes)
}

/// Creates a request that sends these bytes and then nothing, and that does not end.
pub(crate) fn stalled_request(token: Option<&str>, path: &str, sent: Vec<u8>) -> http::Request<Body> {
    let first = stream::iter([Ok::<_, Status>(Frame::data(Bytes::from(sent)))]);
    // A download begins when its request has ended.
    let body = match path {
        DOWNLOAD => Body::new(StreamBody::new(first)),
        _ => Body::new(StreamBody::new(first.chain(stream::pending()))),
    };
    raw_request(token, path).body(body).unwrap()
}

/// Starts a request to a method, without its body.
pub(crate) fn raw_request(token: Option<&str>, path: &str) -> http::request::Builder {
    let request =
        http::Request::post(path).header("content-type", "application/grpc").header("te", "trailers");
    match token {
        Some(token) => request.header("authorization", format!("Bearer {token}")),
        None => request,
    }
}
