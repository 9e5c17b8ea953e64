//! Errors that the transport raises before a use case runs: framing, decoding, compression, routing.

use tonic::{
    Code, Status,
    metadata::{MetadataMap, MetadataValue},
};

use crate::proto::v1::ErrorReason;

/// The header with which a server lists the encodings that it accepts.
const ACCEPT_ENCODING: &str = "grpc-accept-encoding";

/// An error of the transport.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::grpc) enum TransportError {
    /// The message is larger than the method accepts.
    #[error("{}", too_large(*size_bytes, *limit_bytes))]
    MessageTooLarge {
        /// The size, unless only decompression showed that the message is too large.
        size_bytes: Option<usize>,
        /// The limit of the method.
        limit_bytes: usize,
    },
    /// The headers are larger than the server accepts.
    #[error("headers have {size_bytes} bytes; the limit is {limit_bytes} bytes")]
    HeadersTooLarge {
        /// The size of all headers, as RFC 9113 defines it.
        size_bytes: usize,
        /// The limit for all methods.
        limit_bytes: usize,
    },
    /// The message cannot be decoded, for this cause.
    #[error("message cannot be decoded ({0}); check it against the proto files")]
    Malformed(String),
    /// The message is compressed in a way that the method does not accept.
    #[error("the method does not accept this grpc-encoding; use one of: {supported}")]
    EncodingUnsupported {
        /// The names of the accepted encodings, separated by commas.
        supported: String,
    },
    /// The server has no such method.
    #[error("the server has no method of this name")]
    MethodUnknown,
    /// The server has no such service. Only the health service reports this.
    #[error("the server has no service of this name")]
    ServiceUnknown,
}

impl TransportError {
    /// The error of a status without details, if tonic creates such a status.
    pub(super) fn from_status(status: &Status, limit_bytes: usize) -> Option<Self> {
        match status.code() {
            Code::Unimplemented => Some(match status.metadata().get(ACCEPT_ENCODING) {
                Some(supported) => {
                    let supported = supported.to_str().unwrap_or_default().to_owned();
                    Self::EncodingUnsupported { supported }
                }
                None => Self::MethodUnknown,
            }),
            // The sizes of messages are checked before tonic sees them; only decompression finds larger ones.
            Code::OutOfRange | Code::ResourceExhausted => {
                Some(Self::MessageTooLarge { size_bytes: None, limit_bytes })
            }
            Code::Internal => {
                // The error says itself that a message cannot be decoded.
                let cause = status.message();
                let cause = cause.strip_prefix("failed to decode Protobuf message: ").unwrap_or(cause);
                Some(Self::Malformed(cause.to_owned()))
            }
            Code::NotFound => Some(Self::ServiceUnknown),
            _ => None,
        }
    }

    pub(super) fn reason(&self) -> ErrorReason {
        match self {
            Self::MessageTooLarge { .. } | Self::HeadersTooLarge { .. } => ErrorReason::MessageTooLarge,
            Self::Malformed(_) => ErrorReason::MalformedMessage,
            Self::EncodingUnsupported { .. } => ErrorReason::EncodingUnsupported,
            Self::MethodUnknown => ErrorReason::MethodUnknown,
            Self::ServiceUnknown => ErrorReason::NotFound,
        }
    }

    pub(super) fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::MessageTooLarge { size_bytes, limit_bytes } => {
                let size = size_bytes.map(|size| ("size_bytes", size.to_string()));
                size.into_iter().chain([("limit_bytes", limit_bytes.to_string())]).collect()
            }
            Self::HeadersTooLarge { size_bytes, limit_bytes } => {
                vec![("size_bytes", size_bytes.to_string()), ("limit_bytes", limit_bytes.to_string())]
            }
            Self::EncodingUnsupported { supported } => vec![("supported_encodings", supported.clone())],
            Self::Malformed(_) | Self::MethodUnknown | Self::ServiceUnknown => Vec::new(),
        }
    }

    /// Adds the headers that gRPC prescribes for this error.
    pub(super) fn add_headers(&self, headers: &mut MetadataMap) {
        if let Self::EncodingUnsupported { supported } = self
            && let Ok(supported) = MetadataValue::try_from(supported)
        {
            headers.insert(ACCEPT_ENCODING, supported);
        }
    }
}

fn too_large(size_bytes: Option<usize>, limit_bytes: usize) -> String {
    match size_bytes {
        Some(size_bytes) => format!("message has {size_bytes} bytes; the limit is {limit_bytes} bytes"),
        None => format!("decompressed message exceeds the limit of {limit_bytes} bytes"),
    }
}
