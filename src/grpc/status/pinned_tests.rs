//! Pins the reason and the text of each error that only uploads or only imports have. Callers match on the
//! reasons and show the texts.

use std::time::Duration;

use super::{reasons::reason_name, *};
use crate::{
    app::{
        CategoryUse, Denial, Resource, UserLimit, UserQuotaShortage, UserUsage, Workload,
        imports::{FetchFailure, ImportError, ImportStreamOrder},
        uploads::{Stall, UploadError, UploadStreamOrder},
        visitors::VisitorError,
    },
    domain::{checksum::ChecksumAlgorithm, file::FileState, ids::FileId},
};

const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

fn assert_pinned(errors: impl IntoIterator<Item = (Error, &'static str, &'static str)>) {
    for (error, expected_reason, text) in errors {
        assert_eq!((reason_name(reason(&error)), error.to_string().as_str()), (expected_reason, text));
    }
}

const USAGE: UserUsage = UserUsage { used_bytes: 7, reserved_bytes: 1, file_count: 2 };

fn user_quota(exceeded: UserLimit, usage: Option<UserUsage>) -> Error {
    Error::UserQuota(Box::new(UserQuotaShortage { user_id: "alice".to_owned(), exceeded, usage }))
}

#[test]
fn errors_with_subjects_are_pinned() {
    assert_pinned([
        (Error::NotFound(Resource::File), "NOT_FOUND", "file not found"),
        (Error::NotFound(Resource::ImportSource), "NOT_FOUND", "import source not found"),
        (
            Error::NotAllowed(Denial::AdminsOnly),
            "NOT_ALLOWED",
            "not allowed: only the tenant's admins may do this",
        ),
        (
            Error::Overloaded(Workload::Downloads),
            "OVERLOADED",
            "too many downloads at once; retry in a moment",
        ),
        (
            Error::TenantCreationsExhausted { creations_per_minute_max: 240, retry_after: SECOND / 4 },
            "TENANT_CREATIONS_EXHAUSTED",
            "tenant does not exist yet, and the tokens of its issuer create at most 240 tenants a minute; \
             retry in 1 s",
        ),
        (
            Error::TenantReadOnly,
            "TENANT_READ_ONLY",
            "tenant is read-only; nothing was changed; read as usual, or ask the operator to make it writable",
        ),
        (
            Error::CreditsExhausted { balance: 3, required: 5 },
            "CREDITS_EXHAUSTED",
            "user has 3 credits, and 5 are needed; ask the operator to add credits",
        ),
        (
            user_quota(UserLimit::Bytes { needed_bytes: 5, limit_bytes: 9 }, Some(USAGE)),
            "USER_QUOTA_BYTES_EXCEEDED",
            "5 more bytes exceed the quota of user alice: 7 bytes used and 1 reserved of 9; purge files of the user, or \
             ask an admin for a higher limit",
        ),
        (
            user_quota(UserLimit::Bytes { needed_bytes: 5, limit_bytes: 9 }, None),
            "USER_QUOTA_BYTES_EXCEEDED",
            "5 more bytes exceed the quota of user alice: the limit is 9 bytes; purge files of the user, or ask an admin for a higher limit",
        ),
        (
            user_quota(UserLimit::Files { file_count_max: 2 }, None),
            "USER_QUOTA_FILES_EXCEEDED",
            "user alice has too many files; its limit is 2; purge some, or ask an admin for a higher limit",
        ),
        (
            Error::TooManyGrants { grant_count_max: 1_000 },
            "FILE_GRANTS_EXCEEDED",
            "file has 1000 grants, which is the limit; revoke some, or grant the permission to a group",
        ),
        (
            Error::TooManyShares { share_count_max: 1_000 },
            "FILE_SHARES_EXCEEDED",
            "file has 1000 shares, which is the limit; revoke some of them first",
        ),
        (Error::ShareRevoked, "SHARE_REVOKED", "share is revoked and cannot be changed; create another one"),
        (
            Error::TenantPersonal,
            "TENANT_PERSONAL",
            "tenant belongs to one person, and access can be given only in an organization",
        ),
        (
            Error::CategoryInUse(CategoryUse::Default),
            "CATEGORY_IN_USE",
            "category cannot be deleted: it is the default category; make another one the default first",
        ),
    ]);
}

#[test]
fn stream_errors_of_uploads_are_pinned() {
    use UploadError as U;
    use UploadStreamOrder as O;
    let slow = Stall::Slow { received_bytes: 512, seconds: 30, rate_min_bytes_per_second: 1024 };
    let pinned = [
        (
            O::SpecNotFirst.into(),
            "STREAM_ORDER_INVALID",
            "the first message of an upload must be its spec or its upload_id",
        ),
        (
            O::SpecRepeated.into(),
            "STREAM_ORDER_INVALID",
            "the spec or upload_id of an upload is sent once, as the first message",
        ),
        (
            O::MessageEmpty.into(),
            "STREAM_ORDER_INVALID",
            "a message of an upload must be a chunk or the finish message",
        ),
        (O::FinishNotLast.into(), "STREAM_ORDER_INVALID", "a message follows the finish message"),
        (
            U::OffsetGap { expected: 2048, received: -1 },
            "UPLOAD_OFFSET_GAP",
            "chunk starts at offset -1; expected offset 2048",
        ),
        (U::NotFinished, "UPLOAD_NOT_FINISHED", "stream ended without a finish message; nothing was stored"),
        (
            U::Paused { persisted_size_bytes: 8 },
            "UPLOAD_NOT_FINISHED",
            "upload is not finished: 8 bytes are stored; resume from there with its upload id",
        ),
        (
            U::Stalled(Stall::Idle(MINUTE)),
            "UPLOAD_STALLED",
            "upload stalled: received no bytes for 60 seconds; it was not committed",
        ),
        (
            U::Stalled(slow),
            "UPLOAD_STALLED",
            "upload stalled: received 512 bytes in 30 seconds, 17 bytes per second; the minimum is 1024 bytes per \
             second; it was not committed",
        ),
        (
            U::Fenced,
            "UPLOAD_FENCED",
            "stream lost its lease on the upload: another stream resumed it, or it was abandoned; this stream \
             stored no file",
        ),
        (
            U::PartsLost,
            "UPLOAD_PARTS_LOST",
            "object store lost parts of this upload, which has ended; no file was stored; send the file as a new \
             upload",
        ),
        (
            U::CommitTooLate { age: MINUTE, age_max: SECOND },
            "UPLOAD_FENCED",
            "bytes were stored 60 s before the commit; the limit is 1 s; no file was stored; send the upload again",
        ),
    ];
    assert_pinned(pinned.map(|(error, reason, text)| (Error::from(error), reason, text)));
}

#[test]
fn content_errors_of_uploads_are_pinned() {
    use UploadError as U;
    let pinned = [
        (
            U::ChecksumMismatch { algorithm: ChecksumAlgorithm::Crc32c },
            "CHECKSUM_MISMATCH",
            "crc32c of the received bytes does not match the one in the request; send the upload again",
        ),
        (
            U::ChecksumMismatch { algorithm: ChecksumAlgorithm::Sha256 },
            "CHECKSUM_MISMATCH",
            "sha256 of the received bytes does not match the one in the request; send the upload again",
        ),
        (
            U::SizeMismatch { declared: 100, received: 99 },
            "SIZE_MISMATCH",
            "received 99 bytes; the request declared 100",
        ),
        (
            U::PartSizeMismatch { number: 2, declared: 100, received: 99 },
            "SIZE_MISMATCH",
            "part 2 has 99 bytes and must have 100; PUT it again, then complete again",
        ),
        (
            U::HasAllBytes { size_bytes: 100 },
            "SIZE_MISMATCH",
            "upload already ends at 100 bytes; complete it, or cancel it and start again",
        ),
        (
            U::ResentBytesDiffer,
            "UPLOAD_CONTENT_DIFFERS",
            "resent bytes differ from the stored ones; cancel this upload and create a new one for other bytes",
        ),
        (
            U::PartsTooLarge { part_size_bytes: 9 },
            "UPLOAD_PARTS_TOO_LARGE",
            "parts of this upload have 9 bytes, more than this server now buffers; cancel it and create a new one",
        ),
        (
            U::Committed(FileId::from_uuid(uuid::Uuid::nil())),
            "UPLOAD_COMMITTED",
            "upload was committed as file 00000000-0000-0000-0000-000000000000; delete the file instead",
        ),
    ];
    assert_pinned(pinned.map(|(error, reason, text)| (Error::from(error), reason, text)));
}

#[test]
fn errors_of_direct_uploads_are_pinned() {
    use UploadError as U;
    let pinned = [
        (
            U::PartEtagMismatch { number: 2 },
            "CHECKSUM_MISMATCH",
            "part 2 was completed with another etag; create a new upload for other bytes",
        ),
        (
            U::DigestUnknown(FileState::Processing),
            "FILE_NOT_AVAILABLE",
            "`sha256` cannot be compared: the upload was completed without it, and its content is in state \
             processing; complete the upload without `sha256`, or with it after the verification",
        ),
        (
            U::DirectUnsupported,
            "DIRECT_UPLOAD_UNSUPPORTED",
            "this server's object store does not support upload URLs; use UploadFile, or CreateUpload without \
             `direct`",
        ),
        (
            U::IsDirect,
            "UPLOAD_IS_DIRECT",
            "upload is direct: send its bytes to its URLs (GetUpload with `with_urls`), then call CompleteUpload",
        ),
        (
            U::NotDirect,
            "UPLOAD_NOT_DIRECT",
            "upload is not direct: it has no URLs and no `parts`; send its bytes with UploadFile or UploadPart",
        ),
    ];
    assert_pinned(pinned.map(|(error, reason, text)| (Error::from(error), reason, text)));
}

#[test]
fn errors_of_imports_are_pinned() {
    use ImportError as I;
    use ImportStreamOrder as O;
    let fetch_failed = |kind| I::FetchFailed { kind, reason: "the server returned 500".to_owned() };
    let fetch_text = "URL cannot be imported: the server returned 500";
    let pinned = [
        (
            O::OptionsNotFirst.into(),
            "STREAM_ORDER_INVALID",
            "the first message of an import must be its options",
        ),
        (
            O::OptionsRepeated.into(),
            "STREAM_ORDER_INVALID",
            "the options of an import are sent once, as the first message",
        ),
        (
            O::MessageEmpty.into(),
            "STREAM_ORDER_INVALID",
            "a message of an import must be its options or an item",
        ),
        (
            I::Stalled(MINUTE),
            "UPLOAD_STALLED",
            "import stalled: received no message for 60 seconds; run it again: nothing is imported twice",
        ),
        (fetch_failed(FetchFailure::Gone), "NOT_FOUND", fetch_text),
        (fetch_failed(FetchFailure::Refused), "IMPORT_REFUSED", fetch_text),
        (fetch_failed(FetchFailure::Unavailable), "STORAGE_UNAVAILABLE", fetch_text),
        (
            I::ChecksumMismatch { algorithm: ChecksumAlgorithm::Sha256 },
            "CHECKSUM_MISMATCH",
            "sha256 of the object does not match the one in the item",
        ),
        (
            I::SizeMismatch { declared: 4, received: 5 },
            "SIZE_MISMATCH",
            "found 5 bytes of the object; its declared size is 4 bytes",
        ),
        (
            I::SourceIdle(MINUTE),
            "STORAGE_UNAVAILABLE",
            "source sent no bytes for 60 seconds; import the object again",
        ),
        (
            I::SourceSlow { received_bytes: 512, seconds: 30, rate_min_bytes_per_second: 1024 },
            "STORAGE_UNAVAILABLE",
            "source sent 512 bytes in 30 seconds, 17 bytes per second; the minimum is 1024 bytes per second; import \
             the object again",
        ),
        (
            I::LeaseExpired,
            "UPLOAD_FENCED",
            "lease on the stored bytes expired before the commit; no file was stored; import the object again",
        ),
        (
            I::StoreLostBytes,
            "UPLOAD_PARTS_LOST",
            "object store lost stored bytes of the object; no file was stored; import the object again",
        ),
        (
            I::CommitTooLate { age: MINUTE, age_max: SECOND },
            "UPLOAD_FENCED",
            "bytes were stored 60 s before the commit; the limit is 1 s; no file was stored; import the object again",
        ),
    ];
    assert_pinned(pinned.map(|(error, reason, text)| (Error::from(error), reason, text)));
}

#[test]
fn errors_of_visitors_are_pinned() {
    use VisitorError as V;
    let pinned = [
        (Error::NotFound(Resource::Share), "NOT_FOUND", "share not found"),
        (
            V::PasswordRequired.into(),
            "SHARE_PASSWORD_REQUIRED",
            "share has a password; repeat the request with it",
        ),
        (V::PasswordWrong.into(), "SHARE_PASSWORD_WRONG", "password of the share is wrong"),
        (
            V::AttemptsExhausted { retry_after: MINUTE }.into(),
            "SHARE_ATTEMPTS_EXHAUSTED",
            "too many failed attempts; retry in 60 s",
        ),
        (
            V::GrantSpent { size_bytes: 5, use_count_max: 1_000 }.into(),
            "SHARE_GRANT_SPENT",
            "grant has served twice the size of the file, which has 5 bytes, or 1000 requests; resolve the share again",
        ),
    ];
    assert_pinned(pinned);
}
