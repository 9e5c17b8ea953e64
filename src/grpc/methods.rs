//! Properties of methods, from the descriptor set of the contract.

use std::{collections::HashMap, sync::LazyLock};

use prost::Message as _;
use prost_types::{FileDescriptorSet, MethodDescriptorProto, method_options::IdempotencyLevel};

use crate::proto;

/// How a method responds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Responses {
    /// With one message. A method without side effects can be repeated if its response is not sent.
    One {
        /// Whether the contract declares that the method has no side effects.
        is_read: bool,
    },
    /// With a stream, after it has received the whole request.
    Stream,
    /// With a stream, while it receives the messages of the request.
    WhileReceiving,
}

static METHODS: LazyLock<HashMap<String, Responses>> = LazyLock::new(|| {
    // The compiled-in set is valid; a test reads it.
    let set = FileDescriptorSet::decode(proto::DESCRIPTOR_SET).unwrap_or_default();
    let mut methods = HashMap::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                methods.insert(path, responses_of(method));
            }
        }
    }
    methods
});

fn responses_of(method: &MethodDescriptorProto) -> Responses {
    let level = method.options.as_ref().map(|options| options.idempotency_level());
    match (method.client_streaming(), method.server_streaming()) {
        (true, true) => Responses::WhileReceiving,
        (false, true) => Responses::Stream,
        (_, false) => Responses::One { is_read: level == Some(IdempotencyLevel::NoSideEffects) },
    }
}

/// Returns how the method at this path responds, if it is a method of the contract.
pub(super) fn responses(path: &str) -> Option<Responses> {
    METHODS.get(path).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_respond_as_the_contract_declares() {
        for (path, expected) in [
            ("/strongroom.v1.FileService/ListFiles", Some(Responses::One { is_read: true })),
            ("/strongroom.v1.FileService/UploadFile", Some(Responses::One { is_read: false })),
            ("/strongroom.v1.FileService/DownloadFile", Some(Responses::Stream)),
            ("/strongroom.v1.ImportService/ImportFiles", Some(Responses::WhileReceiving)),
            ("/grpc.health.v1.Health/Check", None),
        ] {
            assert_eq!(responses(path), expected, "{path}");
        }
    }
}
