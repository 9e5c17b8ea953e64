//! What callers are told.

use std::collections::{BTreeMap, BTreeSet};

use tonic_types::StatusExt;

use super::*;
use crate::domain::{
    clock::Timestamp,
    file::FileState,
    ids::{FileId, TenantId},
    violations::Violations,
};

const REQUEST_ID: &str = "r-1";

/// One of each error that has no adapter's error inside.
fn errors() -> Vec<Error> {
    vec![
        Error::Invalid(Violations::one("spec.name", "must not be empty")),
        Error::PageTokenInvalid,
        Error::CursorInvalid,
        Error::CursorTooOld,
        Error::TooManyWebhooks(20),
        Error::StreamOrder("the spec comes first"),
        Error::ChecksumMismatch { algorithm: "crc32c" },
        Error::SizeMismatch { declared: 100, received: 99 },
        Error::RequestIdReused,
        Error::OffsetGap { expected: 2048, received: 4096 },
        Error::ReadOutOfRange { size_bytes: 10 },
        Error::Unauthenticated(CredentialsError::Missing),
        Error::Unauthenticated(CredentialsError::Invalid("the token has expired".into())),
        Error::NotAllowed("only the owner may"),
        Error::NotFound("file"),
        Error::FetchFailed { kind: FetchFailure::Gone, reason: "it answered 404 Not Found".into() },
        Error::FetchFailed { kind: FetchFailure::Refused, reason: "it answered 403 Forbidden".into() },
        Error::FetchFailed {
            kind: FetchFailure::Unavailable,
            reason: "it answered 500 Internal Server Error".into(),
        },
        Error::QuotaBytes { needed_bytes: 5, used_bytes: 3, reserved_bytes: 0, limit_bytes: 7 },
        Error::QuotaFiles { file_count: 10, file_count_max: 10 },
        Error::FileTooLarge { kind: "video", limit_bytes: 500 },
        Error::UploadNotFinished,
        Error::UploadPaused { persisted_size_bytes: 8 },
        Error::ResentBytesDiffer,
        Error::DirectUploadUnsupported,
        Error::UploadNotDirect,
        Error::UploadIsDirect,
        Error::PartSizeMismatch { number: 2, declared: 100, received: 99 },
        Error::UploadHasAllBytes { size_bytes: 100 },
        Error::UploadPartsTooLarge { part_size_bytes: 1 << 26 },
        Error::UploadCommitted(FileId::from_uuid(uuid::Uuid::nil())),
        Error::UploadStalled("no message for 60 seconds".into()),
        Error::EtagMismatch,
        Error::RequestInProgress,
        Error::UploadFenced,
        Error::FileDeleted,
        Error::FileNotAvailable(FileState::Processing),
        Error::FileRetained { until: Some(Timestamp::default()), hold: None },
        Error::VersionIsCurrent(1),
        Error::ScanRequired,
        Error::QuotaBelowUsage { used_bytes: 2, reserved_bytes: 1, file_count: 1 },
        Error::TenantSuspended,
        Error::TenantDeleted,
        Error::TenantExists(TenantId::from_uuid(uuid::Uuid::nil())),
        Error::TenantRetained { file_count: 2, held_file_count: 1, until: Some(Timestamp::default()) },
        Error::CategoryExists("report".to_owned()),
        Error::CategoryInUse("files have it"),
        Error::ObjectMissing,
        Error::ObjectDamaged,
        Error::Overloaded("uploads"),
        Error::ShuttingDown,
        Error::internal("the pool is poisoned at db:5432"),
    ]
}

#[test]
fn every_reason_has_one_code_and_every_error_one_reason() {
    let mut codes = BTreeMap::new();
    let told = errors().iter().map(|error| status(error, REQUEST_ID)).collect::<Vec<_>>();
    let ours =
        [overloaded("requests", REQUEST_ID), deadline_exceeded("too late", REQUEST_ID), internal(REQUEST_ID)];
    for status in told.into_iter().chain(ours) {
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.domain, "strongroom");
        assert_eq!(info.metadata["request_id"], REQUEST_ID);
        let reason = ErrorReason::from_str_name(&format!("ERROR_REASON_{}", info.reason)).unwrap();
        assert_eq!(status.code(), code(reason), "{}", info.reason);
        codes.insert(reason as i32, status.code());
    }
    // Their errors hold an adapter's, which this room cannot make; the compiler checks that they are mapped.
    let elsewhere = [ErrorReason::StorageUnavailable, ErrorReason::DatabaseUnavailable];
    let all: BTreeSet<i32> = (1..1000).filter(|number| ErrorReason::try_from(*number).is_ok()).collect();
    let seen: BTreeSet<i32> = codes.into_keys().chain(elsewhere.map(|reason| reason as i32)).collect();
    assert_eq!(seen, all);
    assert!(elsewhere.iter().all(|reason| code(*reason) == Code::Unavailable));
}

#[test]
fn an_internal_error_tells_its_request_id_and_nothing_else() {
    let status = status(&Error::internal("the pool is poisoned at db:5432"), REQUEST_ID);
    assert_eq!(status.code(), Code::Internal);
    assert!(status.message().contains(REQUEST_ID));
    let all = format!("{} {:?}", status.message(), status.get_error_details());
    assert!(!all.contains("poisoned"), "{all}");
}

#[test]
fn the_log_has_the_whole_chain() {
    assert_eq!(chain(&Error::internal("the pool is poisoned")), "internal error: the pool is poisoned");
}

#[test]
fn twenty_long_violations_stay_below_four_kibibytes() {
    let mut violations = Violations::new();
    for index in 0..20 {
        violations.add(format!("spec.attachments[{index}].field"), "é".repeat(1000));
    }
    let status = status(&Error::Invalid(violations), REQUEST_ID);
    assert!(status.details().len() < DETAILS_BYTES_MAX, "{}", status.details().len());
    let told = status.get_details_bad_request().unwrap().field_violations;
    assert_eq!(told.len(), 20);
    assert_eq!(told[19].field, "spec.attachments[19].field");
}

#[test]
fn a_refusal_for_want_of_room_says_what_is_missing_and_not_to_retry() {
    let error = Error::QuotaBytes { needed_bytes: 5, used_bytes: 3, reserved_bytes: 0, limit_bytes: 7 };
    let status = status(&error, REQUEST_ID);
    assert_eq!(status.get_details_quota_failure().unwrap().violations.len(), 1);
    assert_eq!(status.get_details_error_info().unwrap().metadata["limit_bytes"], "7");
    assert!(status.get_details_retry_info().is_none());
}

#[test]
fn an_overloaded_service_says_when_to_retry() {
    let status = overloaded("requests", REQUEST_ID);
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
}

#[test]
fn not_found_says_nothing_of_the_id_that_was_asked_for() {
    let status = status(&Error::NotFound("file"), REQUEST_ID);
    let resource = status.get_details_resource_info().unwrap();
    assert_eq!((resource.resource_type.as_str(), resource.resource_name.as_str()), ("file", ""));
}
