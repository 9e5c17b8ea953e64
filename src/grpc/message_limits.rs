//! Limits the size of request messages per method, and lists the methods that accept compression.

use super::auth::access::find_access;
use crate::config::Config;

const UPLOAD_SERVICE: &str = "/strongroom.v1.UploadService/";

/// The RPC that sends one upload part per message.
pub(super) const PART_METHOD: &str = "/strongroom.v1.UploadService/UploadPart";

/// Services whose messages contain the record or the bytes of a file.
const FILE_SERVICES: [&str; 3] =
    ["/strongroom.v1.FileService/", "/strongroom.v1.ImportService/", UPLOAD_SERVICE];

/// Client-streaming methods. Their messages may not be compressed.
const STREAMING_METHODS: [&str; 4] = [
    "/strongroom.v1.FileService/UploadFile",
    "/strongroom.v1.ImportService/ImportFiles",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// The limits for messages to the service, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct MessageLimits {
    /// The limit for a message to one of [`FILE_SERVICES`].
    pub(super) file_message_bytes_max: usize,
    /// The limit for a message to [`PART_METHOD`].
    pub(super) part_message_bytes_max: usize,
}

impl MessageLimits {
    /// The limit for a message to any other service.
    pub(super) const SMALL_BYTES_MAX: usize = 64 * 1024;

    /// The limit for a message without credentials: the name of a service, or of a symbol.
    pub(super) const ANONYMOUS_BYTES_MAX: usize = 1024;

    pub(super) fn new(config: &Config) -> Self {
        Self {
            file_message_bytes_max: config.server.message_size_max_bytes,
            part_message_bytes_max: config.uploads.part_message_bytes_max(),
        }
    }

    /// Returns the limit for a message to [`UPLOAD_SERVICE`], which is the largest limit of all.
    pub(super) fn bytes_max(&self) -> usize {
        self.file_message_bytes_max.max(self.part_message_bytes_max)
    }

    /// Returns the limit for a message to a method. For a compressed message it applies before decompression.
    pub(super) fn for_method(&self, path: &str) -> usize {
        match path {
            PART_METHOD => self.part_message_bytes_max,
            path if FILE_SERVICES.iter().any(|service| path.starts_with(service)) => {
                self.file_message_bytes_max
            }
            path if find_access(path).is_some_and(|access| !access.needs_credentials()) => {
                Self::ANONYMOUS_BYTES_MAX
            }
            _ => Self::SMALL_BYTES_MAX,
        }
    }

    /// Returns the limit for a compressed message after decompression: tonic has one limit for all methods of
    /// a service.
    pub(super) fn after_decompression(&self, path: &str) -> usize {
        if path.starts_with(UPLOAD_SERVICE) { self.bytes_max() } else { self.for_method(path) }
    }
}

/// Returns whether this method receives a stream of messages.
pub(super) fn is_stream_of_requests(path: &str) -> bool {
    STREAMING_METHODS.contains(&path)
}

/// Returns whether messages to this method may be compressed.
pub(super) fn accepts_compression(path: &str) -> bool {
    !is_stream_of_requests(path)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;
    use crate::{grpc::auth::access::TABLE, proto};

    #[test]
    fn anonymous_messages_have_at_most_one_kibibyte() {
        let limits = MessageLimits::new(&Config::defaults().unwrap());
        for (path, access) in TABLE {
            let is_limited = limits.for_method(path) <= 1024 && limits.after_decompression(path) <= 1024;
            assert_eq!(is_limited, !access.needs_credentials(), "{path}");
        }
    }

    #[test]
    fn lists_every_method_with_a_stream_of_requests() {
        let set = FileDescriptorSet::decode(proto::DESCRIPTOR_SET).unwrap();
        let streaming: BTreeSet<String> = set
            .file
            .iter()
            .flat_map(|file| file.service.iter().map(move |service| (file.package(), service)))
            .flat_map(|(package, service)| {
                let streaming = service.method.iter().filter(|method| method.client_streaming());
                streaming.map(move |method| format!("/{package}.{}/{}", service.name(), method.name()))
            })
            .collect();
        let listed = STREAMING_METHODS.iter().filter(|path| path.starts_with("/strongroom."));
        assert_eq!(listed.map(|path| (*path).to_owned()).collect::<BTreeSet<_>>(), streaming);
    }
}
