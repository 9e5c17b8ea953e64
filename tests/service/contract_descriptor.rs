//! Rules that the descriptor set of the contract must follow, method by method and message by message.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use prost_types::{
    DescriptorProto, FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto,
    method_options::IdempotencyLevel,
};
use strongroom::proto;

const SERVICE_CONFIG: &str = include_str!("../../proto/strongroom_service_config.json");

/// Mutations that have the same effect however often they are sent.
const IDEMPOTENT: [&str; 23] = [
    "ResolveShare",
    "DownloadShare",
    "UploadPart",
    "CompleteUpload",
    "CancelUpload",
    "DeleteFile",
    "UndeleteFile",
    "PurgeFile",
    "BatchDeleteFiles",
    "DeleteFileVersion",
    "ArchiveFile",
    "UnarchiveFile",
    "SetLegalHold",
    "ReleaseLegalHold",
    "DeleteCategory",
    "DeleteWebhook",
    "SuspendTenant",
    "ResumeTenant",
    "DeleteTenant",
    "ReclaimTenant",
    "ApproveErasure",
    "RevokeAccess",
    "RevokeShare",
];

/// Mutations without an idempotency level.
const NO_LEVEL: [&str; 27] = [
    "UploadFile",
    "UpdateFile",
    "CopyFile",
    "RestoreFileVersion",
    "TransferOwnership",
    "CreateUpload",
    "ImportFiles",
    "CreateCategory",
    "UpdateCategory",
    "UpdateQuota",
    "UpdateUserQuota",
    "RecalculateUsage",
    "AddCredits",
    "DeductCredits",
    "CheckRateLimit",
    "CreateWebhook",
    "UpdateWebhook",
    "RotateWebhookSecret",
    "RedeliverWebhook",
    "CreateTenant",
    "UpdateTenant",
    "RequestErasure",
    "ExportTenant",
    "GrantAccess",
    "CreateShare",
    "UpdateShare",
    "RotateShareToken",
];

/// Mutations without a `request_id`: the id in their request already makes repetitions harmless, or, for an
/// export, only the audit entry is repeated. A check of a rate limit counts each call.
const NO_REQUEST_ID: [&str; 7] = [
    "UploadPart",
    "CompleteUpload",
    "ExportTenant",
    "ImportFiles",
    "CheckRateLimit",
    "ResolveShare",
    "DownloadShare",
];

/// Messages with an `event_position` but without a quota.
const HAS_EVENT_ONLY: [&str; 4] =
    ["TransferOwnershipResponse", "ImportResult", "GrantAccessResponse", "RevokeAccessResponse"];

fn files() -> Vec<FileDescriptorProto> {
    let set = FileDescriptorSet::decode(proto::DESCRIPTOR_SET).unwrap();
    set.file.into_iter().filter(|file| file.package().starts_with("strongroom.")).collect()
}

/// Returns every method by the full name of its service and its own name.
fn methods() -> BTreeMap<(String, String), MethodDescriptorProto> {
    let mut methods = BTreeMap::new();
    for file in files() {
        for service in &file.service {
            let name = format!("{}.{}", file.package(), service.name());
            for method in &service.method {
                methods.insert((name.clone(), method.name().to_owned()), method.clone());
            }
        }
    }
    methods
}

fn level(method: &MethodDescriptorProto) -> IdempotencyLevel {
    method.options.clone().unwrap_or_default().idempotency_level()
}

#[test]
fn every_method_has_the_right_idempotency_level() {
    let methods = methods();
    for ((_, name), method) in &methods {
        let name = name.as_str();
        let expected = if IDEMPOTENT.contains(&name) {
            IdempotencyLevel::Idempotent
        } else if NO_LEVEL.contains(&name) {
            IdempotencyLevel::IdempotencyUnknown
        } else {
            let is_read = ["Get", "BatchGet", "Check", "List", "Find", "Download", "Watch"];
            assert!(is_read.iter().any(|verb| name.starts_with(verb)), "{name} is in no list of this test");
            IdempotencyLevel::NoSideEffects
        };
        assert_eq!(level(method), expected, "{name}");
    }
    let names: BTreeSet<&str> = methods.keys().map(|(_, name)| name.as_str()).collect();
    let listed = IDEMPOTENT.iter().chain(&NO_LEVEL).chain(&NO_REQUEST_ID);
    assert_eq!(listed.filter(|name| !names.contains(*name)).count(), 0, "{names:?}");
}

#[test]
fn service_config_retries_exactly_methods_with_a_level() {
    let config: serde_json::Value = serde_json::from_str(SERVICE_CONFIG).unwrap();
    let mut retried = BTreeSet::new();
    for entry in config["methodConfig"].as_array().unwrap() {
        let codes = &entry["retryPolicy"]["retryableStatusCodes"];
        assert_eq!(codes, &serde_json::json!(["UNAVAILABLE"]), "{entry}");
        for name in entry["name"].as_array().unwrap() {
            let text = |key: &str| name[key].as_str().unwrap().to_owned();
            assert!(retried.insert((text("service"), text("method"))), "{name} is repeated");
        }
    }
    let expected: BTreeSet<_> = methods()
        .into_iter()
        .filter(|(_, method)| level(method) != IdempotencyLevel::IdempotencyUnknown)
        .map(|(name, _)| name)
        .collect();
    assert_eq!(retried, expected);
}

#[test]
fn every_mutation_takes_a_request_id() {
    let files = files();
    let has_request_id = |type_name: &str| {
        let (package, message) = type_name.trim_start_matches('.').rsplit_once('.').unwrap();
        let mut messages =
            files.iter().filter(|file| file.package() == package).flat_map(|file| &file.message_type);
        let fields = &messages.find(|other| other.name() == message).unwrap().field;
        fields.iter().any(|field| field.name() == "request_id" || field.type_name().ends_with(".UploadSpec"))
    };
    for ((_, name), method) in methods() {
        let is_exempt =
            level(&method) == IdempotencyLevel::NoSideEffects || NO_REQUEST_ID.contains(&name.as_str());
        assert_eq!(has_request_id(method.input_type()), !is_exempt, "{name}");
    }
}

#[test]
fn every_response_to_a_change_of_files_has_event_position() {
    let has = |message: &DescriptorProto, end: &str| {
        message.field.iter().any(|field| field.type_name().ends_with(end) || field.name() == end)
    };
    let mut count = 0;
    for message in files().iter().flat_map(|file| &file.message_type) {
        let changes_no_file = ["UpdateQuotaResponse", "CheckQuotaResponse"].contains(&message.name());
        if has(message, ".QuotaState") && !changes_no_file || HAS_EVENT_ONLY.contains(&message.name()) {
            assert!(has(message, "event_position"), "{}", message.name());
            count += 1;
        }
    }
    assert!(count >= 16, "{count} messages");
}

#[test]
fn every_file_has_language_options() {
    for file in files() {
        let options = file.options.clone().unwrap();
        let is_admin = file.package() == "strongroom.admin.v1";
        let (go, java, dotted, ruby, php) = match is_admin {
            true => ("admin/v1;adminv1", "io.strongroom.admin.v1", "Strongroom.Admin.V1", "::Admin", "Admin"),
            false => ("v1;strongroomv1", "io.strongroom.v1", "Strongroom.V1", "", ""),
        };
        assert_eq!(options.go_package(), format!("strongroom.io/api/strongroom/{go}"), "{}", file.name());
        assert_eq!((options.java_package(), options.java_multiple_files()), (java, true), "{}", file.name());
        assert_eq!(options.csharp_namespace(), dotted, "{}", file.name());
        assert_eq!(options.ruby_package(), format!("Strongroom{ruby}::V1"), "{}", file.name());
        let parts: Vec<&str> =
            ["Strongroom", php, "V1"].into_iter().filter(|part| !part.is_empty()).collect();
        assert_eq!(options.php_namespace(), parts.join("\\"), "{}", file.name());
    }
}
