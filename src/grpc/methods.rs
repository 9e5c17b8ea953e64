//! Properties of methods, from the descriptor set of the contract.

use std::{collections::HashMap, sync::LazyLock};

use prost::Message as _;
use prost_types::{FileDescriptorSet, MethodDescriptorProto, method_options::IdempotencyLevel};

use super::rate_actions;
use crate::{domain::rate_limits::RateAction, proto};

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

/// The properties of a method.
struct Method {
    responses: Responses,
    is_read: bool,
    /// `None` for methods of visitors, who are no callers.
    action: Option<RateAction>,
}

static METHODS: LazyLock<HashMap<String, Method>> = LazyLock::new(|| {
    // The compiled-in set is valid; a test reads it.
    let set = FileDescriptorSet::decode(proto::DESCRIPTOR_SET).unwrap_or_default();
    let mut methods = HashMap::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                let is_read = declares_no_side_effects(method);
                let (responses, action) = (responses_of(method, is_read), rate_actions::find_action(&path));
                methods.insert(path, Method { responses, is_read, action });
            }
        }
    }
    methods
});

fn declares_no_side_effects(method: &MethodDescriptorProto) -> bool {
    let options = method.options.as_ref();
    options.is_some_and(|options| options.idempotency_level() == IdempotencyLevel::NoSideEffects)
}

fn responses_of(method: &MethodDescriptorProto, is_read: bool) -> Responses {
    match (method.client_streaming(), method.server_streaming()) {
        (true, true) => Responses::WhileReceiving,
        (false, true) => Responses::Stream,
        (_, false) => Responses::One { is_read },
    }
}

/// Returns how the method at this path responds, if it is a method of the contract.
pub(super) fn responses(path: &str) -> Option<Responses> {
    METHODS.get(path).map(|method| method.responses)
}

/// Returns whether the contract declares that the method at this path has no side effects.
pub(super) fn has_no_side_effects(path: &str) -> bool {
    METHODS.get(path).is_some_and(|method| method.is_read)
}

/// Returns the action of the method at this path, if it has one.
pub(super) fn rate_action(path: &str) -> Option<RateAction> {
    METHODS.get(path).and_then(|method| method.action)
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

    #[test]
    fn unknown_methods_have_side_effects() {
        for path in ["", "/strongroom.v1.FileService/Nothing", "/strongroom.v1.FileService/UploadFile"] {
            assert!(!has_no_side_effects(path), "{path}");
        }
        assert!(has_no_side_effects("/strongroom.v1.FileService/DownloadFile"));
    }
}
