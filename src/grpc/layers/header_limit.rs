//! Rejects requests with too many bytes of headers.
//!
//! HTTP/2 rejects them too, but without a gRPC status: the client then reports an unknown error. So the
//! transport accepts somewhat larger headers than the limit, and this layer returns the error of the contract.

use http::{Request, Response};
use tonic::body::Body;

use super::{Around, Inner, Next};
use crate::grpc::{
    call::request_origin,
    status::{self, TransportError},
};

/// The overhead of a header in the size of a list, which RFC 9113 defines.
const HEADER_OVERHEAD_BYTES: usize = 32;

/// The names of the pseudo-headers, each with its overhead.
const PSEUDO_HEADERS_BYTES: usize =
    ":method".len() + ":scheme".len() + ":authority".len() + ":path".len() + 4 * HEADER_OVERHEAD_BYTES;

/// The limit of the transport, as a multiple of the limit of this layer. `default.toml` names it.
const TRANSPORT_FACTOR: u32 = 8;

/// Rejects requests whose headers have more bytes than this.
#[derive(Clone, Copy)]
pub(in crate::grpc) struct HeaderLimit(pub(in crate::grpc) u32);

impl HeaderLimit {
    /// Returns the limit of the transport, beyond which it rejects a request without a gRPC status.
    pub(in crate::grpc) fn transport_bytes_max(self) -> u32 {
        self.0.saturating_mul(TRANSPORT_FACTOR)
    }
}

impl Around for HeaderLimit {
    async fn around<S: Inner>(&self, request: Request<Body>, next: Next<S>) -> Response<Body> {
        let (size_bytes, limit_bytes) = (header_list_bytes(&request), self.0 as usize);
        if size_bytes > limit_bytes {
            let error = TransportError::HeadersTooLarge { size_bytes, limit_bytes };
            return status::transport(&error, &request_origin(request.extensions()).call_id).into_http();
        }
        next.run(request).await
    }
}

/// Returns the size of the headers, as RFC 9113 defines it.
fn header_list_bytes(request: &Request<Body>) -> usize {
    let uri = request.uri();
    let texts = [
        request.method().as_str(),
        uri.scheme_str().unwrap_or_default(),
        uri.authority().map_or("", |authority| authority.as_str()),
        uri.path_and_query().map_or("", |path| path.as_str()),
    ];
    let pseudo_headers = PSEUDO_HEADERS_BYTES + texts.map(str::len).iter().sum::<usize>();
    let headers = request.headers().iter();
    pseudo_headers
        + headers
            .map(|(name, value)| name.as_str().len() + value.len() + HEADER_OVERHEAD_BYTES)
            .sum::<usize>()
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use tonic_types::StatusExt;

    use super::*;
    use crate::grpc::layers::testing::{call, request, status};

    #[test]
    fn configuration_names_the_limit_of_the_transport() {
        assert_eq!(HeaderLimit(1_000).transport_bytes_max(), 8_000);
        let reference = include_str!("../../config/default.toml");
        assert!(reference.contains("beyond eight times this size"));
    }

    #[tokio::test]
    async fn headers_beyond_the_limit_are_refused_with_both_sizes() {
        let layer = HeaderLimit(1_000);
        let respond = |_| std::future::ready(Response::new(Body::empty()));
        let mut large = request("/any");
        let name = "x-padding";
        let rest = 1_000 - header_list_bytes(&large) - name.len() - HEADER_OVERHEAD_BYTES;
        large.headers_mut().insert(name, "x".repeat(rest).parse().unwrap());
        assert_eq!(header_list_bytes(&large), 1_000);
        assert!(status(&call(&layer, large, respond).await).is_none());

        let mut too_large = request("/any");
        too_large.headers_mut().insert(name, "x".repeat(rest + 1).parse().unwrap());
        let refused = status(&call(&layer, too_large, respond).await).unwrap();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        let info = refused.get_details_error_info().unwrap();
        assert_eq!(info.reason, "MESSAGE_TOO_LARGE");
        assert_eq!(
            (info.metadata["size_bytes"].as_str(), info.metadata["limit_bytes"].as_str()),
            ("1001", "1000")
        );
    }
}
