//! Compares statuses with `error_reason.proto`.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic_types::StatusExt;

use super::{details::RETRY_PUSHBACK, reasons::code, *};
use crate::{
    app::{
        CategoryUse, CredentialsError, Denial, InvalidCredentials, PendingDeletion, QuotaShortage, RateEvent,
        RateScope, Resource, Workload,
        imports::{FetchFailure, ImportError, ImportStreamOrder},
        owner::NotOwner,
        uploads::{OpenUploadScope, Stall, UploadError, UploadStreamOrder},
        visitors::VisitorError,
    },
    domain::{
        checksum::ChecksumAlgorithm,
        clock::Timestamp,
        file::{FileState, LegalHold},
        ids::{FileId, InstallationId, TenantId},
        media_type::MediaKind,
        rate_limits::RateAction,
        store_owner::{DatabaseIdentity, OwnerBeat, OwnerMarker, OwnerMismatch},
        violations::Violations,
    },
    proto,
};

const CALL_ID: &str = "c-1";

/// At least one error of each reason that a use case can return.
fn errors() -> Vec<Error> {
    let mut errors = vec![
        Error::Invalid(Violations::one("spec.name", "must not be empty")),
        Error::PageTokenInvalid,
        Error::CursorInvalid,
        Error::CursorTooOld,
        Error::RequestIdReused,
        Error::ReadOutOfRange { size_bytes: 10 },
        Error::Unauthenticated(CredentialsError::Missing),
        Error::Unauthenticated(InvalidCredentials::Expired.into()),
        Error::NotAllowed(Denial::OwnerAndAdminsOnly),
        Error::NotFound(Resource::File),
        Error::QuotaBytes(shortage()),
        Error::QuotaFiles { file_count: 10, file_count_max: 10 },
        Error::TooManyVersions { version_count_max: 1_000 },
        Error::TooManyGrants { grant_count_max: 1_000 },
        Error::FileTooLarge { kind: Some(MediaKind::Video), size_bytes: 501, limit_bytes: 500 },
        Error::FileTooLarge { kind: None, size_bytes: 501, limit_bytes: 500 },
        Error::QuotaBelowUsage { used_bytes: 2, reserved_bytes: 1, file_count: 1 },
        Error::CreditsExhausted { balance: 3, required: 5 },
        Error::Overloaded(Workload::Uploads),
        Error::TenantCreationsExhausted {
            creations_per_minute_max: 240,
            retry_after: Duration::from_millis(250),
        },
        Error::RateLimited {
            scope: RateScope::Caller,
            event: RateEvent::Requests,
            per_second_max: 5,
            retry_after: Duration::from_millis(200),
        },
        Error::RateLimited {
            scope: RateScope::Caller,
            event: RateEvent::Action(RateAction::Upload),
            per_second_max: 5,
            retry_after: Duration::from_millis(200),
        },
        Error::EtagMismatch,
        Error::RequestInProgress,
        Error::FileDeleted,
        Error::FileNotAvailable(FileState::Processing),
        Error::FileRetained { until: Some(Timestamp::default()), hold: Some(hold()) },
        Error::VersionIsCurrent(1),
        Error::ScanRequired,
        Error::EmailNotConfigured,
        Error::ObjectMissing,
        Error::ObjectDamaged,
        Error::StorageFull("no space left on device".into()),
        Error::ProviderUnknown("archive-2024".into()),
        Error::StoreNotOwned(Box::new(not_owner())),
        Error::database_unavailable(),
        unknown(true),
        unknown(false),
        Error::ShuttingDown,
        Error::internal("the pool is poisoned at db:5432"),
    ];
    errors.extend(upload_errors().into_iter().map(Error::from));
    errors.extend(import_errors().into_iter().map(Error::from));
    errors.extend(visitor_errors().into_iter().map(Error::from));
    errors.extend(tenant_errors());
    errors
}

fn not_owner() -> NotOwner {
    let id = InstallationId::from_uuid(uuid::Uuid::from_u128(1));
    let database = DatabaseIdentity {
        installation_id: id,
        incarnation: "7-00000001-5".to_owned(),
        server_start_time: Timestamp::default(),
    };
    let beat = OwnerBeat { epoch: 2, beat: 3, token: uuid::Uuid::from_u128(4) };
    let owner = Some(OwnerMarker::new(database, beat, Timestamp::default()));
    NotOwner { provider: "p".repeat(40), mismatch: OwnerMismatch::Copied, owner }
}

#[test]
fn message_of_a_foreign_store_says_what_to_do() {
    let status = status(&Error::StoreNotOwned(Box::new(not_owner())), CALL_ID);
    assert!(status.message().contains("`strongroom storage adopt` takes it over"), "{}", status.message());
}

/// A shortage with all figures that a caller can get.
fn shortage() -> QuotaShortage {
    QuotaShortage {
        needed_bytes: 5,
        used_bytes: 3,
        reserved_bytes: 0,
        limit_bytes: 7,
        pending_deletion: Some(PendingDeletion { bytes: 9, bytes_max: 7 }),
        trash_bytes: Some(2),
    }
}

fn upload_errors() -> Vec<UploadError> {
    vec![
        UploadStreamOrder::SpecNotFirst.into(),
        UploadError::ChecksumMismatch { algorithm: ChecksumAlgorithm::Crc32c },
        UploadError::SizeMismatch { declared: 100, received: 99 },
        UploadError::PartSizeMismatch { number: 2, declared: 100, received: 99 },
        UploadError::PartEtagMismatch { number: 2 },
        UploadError::DigestUnknown(FileState::Processing),
        UploadError::HasAllBytes { size_bytes: 100 },
        UploadError::OffsetGap { expected: 2048, received: 4096 },
        UploadError::ResentBytesDiffer,
        UploadError::NotFinished,
        UploadError::Paused { persisted_size_bytes: 8 },
        UploadError::Stalled(Stall::Idle(Duration::from_secs(60))),
        UploadError::Stalled(Stall::Slow {
            received_bytes: 512,
            seconds: 30,
            rate_min_bytes_per_second: 1024,
        }),
        UploadError::Fenced,
        UploadError::PartsLost,
        UploadError::CommitTooLate { age: Duration::from_secs(2), age_max: Duration::from_secs(1) },
        UploadError::Committed(FileId::from_uuid(uuid::Uuid::nil())),
        UploadError::PartsTooLarge { part_size_bytes: 1 << 26 },
        UploadError::DirectUnsupported,
        UploadError::IsDirect,
        UploadError::NotDirect,
        UploadError::TooManyOpen { scope: OpenUploadScope::Caller, upload_count_max: 100 },
    ]
}

fn import_errors() -> Vec<ImportError> {
    let fetch_failed = |kind| ImportError::FetchFailed { kind, reason: "HTTP status 404".into() };
    vec![
        ImportStreamOrder::OptionsNotFirst.into(),
        ImportError::Stalled(Duration::from_secs(60)),
        fetch_failed(FetchFailure::Gone),
        fetch_failed(FetchFailure::Refused),
        fetch_failed(FetchFailure::Unavailable),
        ImportError::ChecksumMismatch { algorithm: ChecksumAlgorithm::Sha256 },
        ImportError::SizeMismatch { declared: 100, received: 99 },
        ImportError::SourceIdle(Duration::from_secs(60)),
        ImportError::SourceSlow { received_bytes: 512, seconds: 30, rate_min_bytes_per_second: 1024 },
        ImportError::LeaseExpired,
        ImportError::StoreLostBytes,
        ImportError::CommitTooLate { age: Duration::from_secs(2), age_max: Duration::from_secs(1) },
    ]
}

fn visitor_errors() -> Vec<VisitorError> {
    vec![
        VisitorError::PasswordRequired,
        VisitorError::PasswordWrong,
        VisitorError::AttemptsExhausted { retry_after: Duration::from_secs(60) },
        VisitorError::GrantSpent { size_bytes: 1 << 20, use_count_max: 1_000 },
    ]
}

fn tenant_errors() -> Vec<Error> {
    vec![
        Error::TenantPersonal,
        Error::TooManyShares { share_count_max: 1_000 },
        Error::ShareRevoked,
        Error::TenantSuspended,
        Error::TenantReadOnly,
        Error::TenantDeleted,
        Error::TenantExists(TenantId::from_uuid(uuid::Uuid::nil())),
        Error::TenantRetained { file_count: 2, held_file_count: 1, until: Some(Timestamp::default()) },
        Error::CategoryExists("report".to_owned()),
        Error::CategoryInUse(CategoryUse::Files),
        Error::TooManyWebhooks(20),
        Error::WatchesExhausted { watch_count_max: 64 },
    ]
}

fn unknown(has_request_id: bool) -> Error {
    Error::OutcomeUnknown { has_request_id, source: "connection reset".into() }
}

fn hold() -> LegalHold {
    LegalHold { reason: "trial".into(), by: "ada".into(), time: Timestamp::default() }
}

/// The status of at least one error of each reason.
fn statuses() -> Vec<Status> {
    let transport_errors = [
        TransportError::MessageTooLarge { size_bytes: Some(11), limit_bytes: 10 },
        TransportError::MessageTooLarge { size_bytes: None, limit_bytes: 10 },
        TransportError::Malformed("invalid UTF-8".to_owned()),
        TransportError::EncodingUnsupported { supported: "gzip,identity".to_owned() },
        TransportError::MethodUnknown,
        TransportError::ServiceUnknown,
    ];
    let errors = errors();
    let statuses = errors.iter().map(|error| status(error, CALL_ID));
    let transport_statuses = transport_errors.iter().map(|error| transport(error, CALL_ID));
    statuses.chain(transport_statuses).chain([deadline_exceeded("too late", CALL_ID)]).collect()
}

/// The promise of a reason: its code, whether its errors have a `RetryInfo`, and the keys of its metadata.
#[derive(Debug, Default, PartialEq, Eq)]
struct Promise {
    code: String,
    has_retry_info: bool,
    keys: BTreeSet<String>,
}

/// The promises of `error_reason.proto`, by the name of the reason.
fn documented() -> BTreeMap<String, Promise> {
    let set = FileDescriptorSet::decode(proto::DESCRIPTOR_SET).unwrap();
    let file = set.file.into_iter().find(|file| file.name().ends_with("v1/error_reason.proto")).unwrap();
    let values: Vec<String> = file.enum_type[0].value.iter().map(|value| value.name().to_owned()).collect();
    let locations = file.source_code_info.unwrap().location;
    // The path of the n-th value of the first enum.
    let comments = locations.into_iter().filter(|location| location.path.starts_with(&[5, 0, 2]));
    let comments = comments.filter(|location| location.path.len() == 4 && location.path[3] > 0);
    comments
        .map(|location| {
            let value = usize::try_from(location.path[3]).unwrap();
            let name = values[value].strip_prefix("ERROR_REASON_").unwrap().to_owned();
            let promise = promise(&name, location.leading_comments());
            (name, promise)
        })
        .collect()
}

fn promise(name: &str, comment: &str) -> Promise {
    let line = |label: &str| {
        let text = comment.lines().find_map(|line| line.trim().strip_prefix(label));
        text.unwrap_or_else(|| panic!("{name} has no line `{label}`")).trim()
    };
    for label in ["When:", "Do:", "Example:"] {
        assert!(!line(label).is_empty(), "{name}: {label}");
    }
    // The metadata come last and can have several lines.
    let (_, metadata) = comment.split_once("Metadata:").unwrap_or_else(|| panic!("{name} has no metadata"));
    let metadata: BTreeMap<String, String> = serde_json::from_str(metadata)
        .unwrap_or_else(|error| panic!("{name}: the metadata are no JSON object of strings: {error}"));
    let code = line("Code:");
    let words = comment.split_whitespace().collect::<Vec<_>>().join(" ");
    Promise {
        code: code.split([',', '.']).next().unwrap().to_owned(),
        has_retry_info: words.contains("with RetryInfo") || words.contains("(RetryInfo is present"),
        keys: metadata.into_keys().collect(),
    }
}

/// The name of a code as the proto files write it: `NOT_FOUND`.
fn code_name(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

#[test]
fn documented_reasons_match_the_statuses() {
    let mut returned: BTreeMap<String, Promise> = BTreeMap::new();
    for status in statuses() {
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.domain, "strongroom");
        assert_eq!(info.metadata["call_id"], CALL_ID);
        let reason = ErrorReason::from_str_name(&format!("ERROR_REASON_{}", info.reason)).unwrap();
        assert_eq!(status.code(), code(reason), "{}", info.reason);
        let promise = returned.entry(info.reason).or_default();
        promise.code = code_name(status.code());
        promise.has_retry_info |= status.get_details_retry_info().is_some();
        promise.keys.extend(info.metadata.into_keys().filter(|key| key != "call_id"));
    }
    let documented = documented();
    for (reason, promise) in &documented {
        assert_eq!(returned.get(reason), Some(promise), "{reason}");
    }
    assert!(returned.keys().all(|reason| documented.contains_key(reason)));
}

#[test]
fn retry_delays_are_sent_as_pushback_too() {
    let mut delays = BTreeSet::new();
    for status in statuses() {
        let pushback = status.metadata().get(RETRY_PUSHBACK).map(|sent| sent.to_str().unwrap().to_owned());
        let delay = status.get_details_retry_info().map(|info| info.retry_delay.unwrap());
        let expected = delay.map(|delay| delay.as_millis().to_string());
        assert_eq!(pushback, expected, "{status:?}");
        delays.extend(expected);
    }
    assert!(delays.len() > 1, "{delays:?}");
    let built = |delay| {
        let builder = StatusBuilder::new(ErrorReason::RateLimited, "slow down".to_owned(), CALL_ID);
        let status = builder.retry_after(delay).build();
        status.metadata().get(RETRY_PUSHBACK).unwrap().to_str().unwrap().to_owned()
    };
    assert_eq!(built(Duration::from_micros(1_500)), "2", "rounded up");
    assert_eq!(built(Duration::from_secs(1 << 40)), i32::MAX.to_string());
}

#[test]
fn metadata_has_no_sentences() {
    for status in statuses() {
        let info = status.get_details_error_info().unwrap();
        for (key, value) in info.metadata {
            assert!(!value.contains(' '), "{}: {key} is {value:?}", info.reason);
        }
    }
}

#[test]
fn internal_error_reveals_only_its_call_id() {
    let status = status(&Error::internal("the pool is poisoned at db:5432"), CALL_ID);
    assert_eq!(status.code(), Code::Internal);
    assert!(status.message().contains(CALL_ID));
    let all = format!("{} {:?}", status.message(), status.get_error_details());
    assert!(!all.contains("poisoned"), "{all}");
}

#[test]
fn log_has_all_causes() {
    assert_eq!(with_causes(&Error::internal("the pool is poisoned")), "internal error: the pool is poisoned");
}

#[test]
fn twenty_long_violations_stay_below_four_kibibytes() {
    let mut violations = Violations::new();
    for index in 0..20 {
        violations.add(format!("spec.attachments[{index}].field"), "é".repeat(1000));
    }
    let status = status(&Error::Invalid(violations), CALL_ID);
    assert!(status.details().len() < DETAILS_BYTES_MAX, "{}", status.details().len());
    let violations = status.get_details_bad_request().unwrap().field_violations;
    assert_eq!(violations.len(), 20);
    assert_eq!(violations[19].field, "spec.attachments[19].field");
}

#[test]
fn exceeded_quota_has_the_numbers_and_no_retry_info() {
    let error = Error::QuotaBytes(shortage());
    let status = status(&error, CALL_ID);
    assert_eq!(status.get_details_quota_failure().unwrap().violations.len(), 1);
    assert_eq!(status.get_details_error_info().unwrap().metadata["limit_bytes"], "7");
    assert!(status.get_details_retry_info().is_none());
}

#[test]
fn not_found_does_not_repeat_the_id() {
    let status = status(&Error::NotFound(Resource::File), CALL_ID);
    let resource = status.get_details_resource_info().unwrap();
    assert_eq!((resource.resource_type.as_str(), resource.resource_name.as_str()), ("file", ""));
}
