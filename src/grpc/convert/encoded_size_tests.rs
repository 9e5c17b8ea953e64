//! Compares the upper bounds of `domain/encoded_size.rs` with encoded messages, and shows that every message
//! with one record is below 4 MiB.

use proptest::prelude::*;
use prost::Message;
use serde_json::{Map, Value};

use super::{credits, file, share, structs, tenant, upload, version, watch, webhook};
use crate::{
    app::{
        credits::CreditEntryPage,
        files::{
            FileVersionList, batch_get,
            watch::{FileEvent, MessageBody, WatchMessage},
        },
        tenants::ExportRecord,
    },
    db::{
        audit_entries::{AuditAction, AuditEntry, StoredAuditEntry},
        event_stream::StoredEvent,
        events::{EventKind, EventSubject},
        tenants::StoredPolicy,
        webhook_deliveries::Delivery,
    },
    domain::{
        caller::{Actor, ActorKind, TenantKind, TenantState},
        clock::Timestamp,
        credits::{CreditEntry, REASON_CHARACTERS_MAX, REFERENCE_CHARACTERS_MAX},
        digest::Digest,
        encoded_size,
        event_position::EventPosition,
        file::{
            ContentState, EntityRef, File, FileAccess, FileVersion, LegalHold, ScanStatus, StateReason,
            Trash, Visibility,
        },
        ids::{FileId, GrantId, ShareId, TenantId, UploadId, WebhookId},
        media_type::MediaKind,
        permission::Permission,
        policy::{
            Category, LinkRules, Policy, ReaderRule,
            categories::{CATEGORIES_MAX, NAME_CHARACTERS_MAX, TYPES_MAX},
        },
        rate_limits::{PER_SECOND_MAX, RequestLimit, RequestLimits},
        share::{Share, ShareType},
        storage_class::StorageClass,
        tenant_record::{DeletionProgress, TenantRecord},
        text,
        upload::{Upload, UploadState},
        upload_spec::{ATTACHMENTS_MAX, ENTITY_NAME_CHARACTERS_MAX},
        webhook::{DeliveryState, Webhook, WebhookState},
    },
    proto::{admin, v1},
};

/// The largest message that most clients accept.
const RESPONSE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Generates the values of records: random ones, or the largest ones.
struct Draw {
    /// The state of the generator; `None` generates the largest values.
    state: Option<u64>,
}

impl Draw {
    /// Returns a number up to and including `max`.
    fn up_to(&mut self, max: usize) -> usize {
        let Some(state) = &mut self.state else { return max };
        // SplitMix64.
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let number = usize::try_from(mixed ^ (mixed >> 31)).unwrap();
        // Includes many lengths at which the encoded length prefix changes its size.
        match number % 4 {
            0 => max,
            1 => (number >> 2) % (max.min(130) + 1),
            _ => (number >> 2) % max.saturating_add(1).max(1),
        }
    }

    fn text(&mut self, characters_max: usize) -> String {
        let character = ["a", "é", "€", "𝄞"][self.up_to(3)];
        character.repeat(self.up_to(characters_max))
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.up_to(all.len() - 1)]
    }

    fn number(&mut self) -> i64 {
        // The largest encoding is that of a negative number.
        self.one_of(&[0, 1, 127, 128, i64::MAX, -1])
    }

    fn small_number(&mut self) -> i32 {
        self.one_of(&[0, 1, 127, 128, i32::MAX, -1])
    }

    fn time(&mut self) -> Timestamp {
        let (seconds, nanos) =
            self.one_of(&[(0, 0), (1_800_000_000, 5_000), (253_402_300_799, 999_999_999), (-1, 999_999_999)]);
        Timestamp::from_timestamp(seconds, nanos).unwrap()
    }

    fn maybe<T>(&mut self, draw: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.up_to(1) == 1).then(|| draw(self))
    }

    fn id(&mut self) -> uuid::Uuid {
        uuid::Uuid::max()
    }

    fn position(&mut self) -> EventPosition {
        EventPosition::MAX
    }

    fn metadata(&mut self) -> Map<String, Value> {
        if self.state.is_some() {
            return (0..self.up_to(40)).map(|n| (format!("{n}{}", self.text(40)), self.value(3))).collect();
        }
        let with = |length| Map::from_iter([(String::new(), Value::String("x".repeat(length)))]);
        let overhead =
            structs::to_proto(with(text::METADATA_BYTES_MAX)).encoded_len() - text::METADATA_BYTES_MAX;
        with(text::METADATA_BYTES_MAX - overhead)
    }

    fn value(&mut self, depth: usize) -> Value {
        match self.up_to(if depth == 0 { 3 } else { 5 }) {
            0 => Value::Null,
            1 => Value::Bool(self.up_to(1) == 1),
            2 => Value::from(self.number()),
            3 => Value::String(self.text(200)),
            4 => (0..self.up_to(20)).map(|_| self.value(depth - 1)).collect(),
            _ => (0..self.up_to(20)).map(|n| (n.to_string(), self.value(depth - 1))).collect(),
        }
    }

    fn file(&mut self) -> File {
        let entity = |draw: &mut Self| EntityRef {
            entity_type: draw.text(ENTITY_NAME_CHARACTERS_MAX),
            entity_id: draw.text(text::EXTERNAL_ID_CHARACTERS_MAX),
            field: draw.text(ENTITY_NAME_CHARACTERS_MAX),
        };
        File {
            id: FileId::from_uuid(self.id()),
            tenant_id: TenantId::from_uuid(self.id()),
            owner_id: self.text(text::EXTERNAL_ID_CHARACTERS_MAX),
            created_by: self.text(text::EXTERNAL_ID_CHARACTERS_MAX),
            updated_by: self.text(text::EXTERNAL_ID_CHARACTERS_MAX),
            name: self.text(text::NAME_CHARACTERS_MAX),
            original_name: self.text(text::NAME_CHARACTERS_MAX),
            category: self.text(NAME_CHARACTERS_MAX),
            title: self.text(text::TITLE_CHARACTERS_MAX),
            description: self.text(text::DESCRIPTION_BYTES_MAX / 4),
            metadata: self.metadata(),
            tags: (0..self.up_to(text::TAGS_MAX)).map(|_| self.text(text::TAG_CHARACTERS_MAX)).collect(),
            attachments: (0..self.up_to(ATTACHMENTS_MAX)).map(|_| entity(self)).collect(),
            visibility: self.one_of(Visibility::ALL),
            version: self.small_number(),
            content_state: self.one_of(ContentState::ALL),
            scan_status: self.one_of(ScanStatus::ALL),
            mime_type: self.text(255),
            declared_mime_type: self.text(255),
            media_kind: MediaKind::Document,
            size_bytes: self.number().unsigned_abs(),
            sha256: Some(Digest::compute(b"")),
            revision: self.number(),
            create_time: self.time(),
            update_time: self.time(),
            trash: self.maybe(|draw| Trash { delete_time: draw.time(), purge_time: draw.time() }),
            archive_time: self.maybe(Self::time),
            expire_time: self.maybe(Self::time),
            deletion_time: self.maybe(Self::time),
            retain_until_time: self.maybe(Self::time),
            hold: self.maybe(|draw| LegalHold {
                time: draw.time(),
                by: draw.text(text::EXTERNAL_ID_CHARACTERS_MAX),
                reason: draw.text(500),
            }),
            access: self.maybe(|draw| FileAccess {
                download_count: draw.number().unsigned_abs(),
                last_access_time: draw.maybe(Self::time),
            }),
            state_reason: self.maybe(|draw| draw.one_of(StateReason::ALL)),
        }
    }

    fn version(&mut self) -> FileVersion {
        FileVersion {
            version: self.small_number(),
            content_state: self.one_of(ContentState::ALL),
            scan_status: self.one_of(ScanStatus::ALL),
            mime_type: self.text(255),
            declared_mime_type: self.text(255),
            size_bytes: self.number().unsigned_abs(),
            sha256: Some(Digest::compute(b"")),
            created_by: self.text(text::EXTERNAL_ID_CHARACTERS_MAX),
            create_time: self.time(),
            change_description: self.text(text::CHANGE_DESCRIPTION_CHARACTERS_MAX),
            restored_from: self.maybe(Self::small_number),
            state_reason: self.maybe(|draw| draw.one_of(StateReason::ALL)),
            storage_class: self.one_of(StorageClass::ALL),
        }
    }

    fn upload(&mut self) -> Upload {
        Upload {
            id: UploadId::from_uuid(self.id()),
            state: self.one_of(UploadState::ALL),
            name: self.maybe(|draw| draw.text(text::NAME_CHARACTERS_MAX)),
            size_bytes: self.maybe(|draw| draw.number().unsigned_abs()),
            part_size_bytes: self.number().unsigned_abs(),
            persisted_size_bytes: self.number().unsigned_abs(),
            created_by: self.text(text::EXTERNAL_ID_CHARACTERS_MAX),
            create_time: self.time(),
            expire_time: self.time(),
            file: self.maybe(|draw| FileId::from_uuid(draw.id())),
        }
    }

    fn webhook(&mut self) -> Webhook {
        Webhook {
            id: WebhookId::from_uuid(self.id()),
            url: self.text(2_048),
            description: self.text(255),
            kinds: EventKind::ALL.iter().map(|kind| kind.number()).take(self.up_to(50)).collect(),
            state: self.one_of(WebhookState::ALL),
            state_reason: self.text(500),
            position: self.position(),
            failed_attempts: self.small_number(),
            last_error: self.text(500),
            next_attempt_time: self.time(),
            created_by: self.text(text::EXTERNAL_ID_CHARACTERS_MAX),
            create_time: self.time(),
            update_time: self.time(),
            revision: self.number(),
        }
    }

    fn share(&mut self) -> Share {
        Share {
            id: ShareId::from_uuid(self.id()),
            file: FileId::from_uuid(self.id()),
            share_type: self.one_of(ShareType::ALL),
            permission: self.one_of(Permission::ALL),
            has_password: true,
            pinned_version: self.maybe(Self::small_number),
            expire_time: self.maybe(Self::time),
            max_downloads: self.maybe(Self::number),
            download_count: self.number(),
            view_count: self.number(),
            last_access_time: self.maybe(Self::time),
            note: self.text(500),
            recipients: (0..self.up_to(100)).map(|_| self.text(text::EXTERNAL_ID_CHARACTERS_MAX)).collect(),
            created_by: self.text(text::EXTERNAL_ID_CHARACTERS_MAX),
            source_grant: self.maybe(|draw| GrantId::from_uuid(draw.id())),
            create_time: self.time(),
            update_time: self.time(),
            revision: self.number(),
            revoke_time: self.maybe(Self::time),
        }
    }

    fn delivery(&mut self) -> Delivery {
        Delivery {
            event: StoredEvent {
                position: self.position(),
                kind: self.one_of(EventKind::ALL),
                subject: EventSubject::File {
                    id: FileId::from_uuid(self.id()),
                    version: self.small_number(),
                },
                revision: self.number(),
                actor_id: self.text(text::EXTERNAL_ID_CHARACTERS_MAX),
                create_time: self.time(),
            },
            state: self.one_of(DeliveryState::ALL),
            attempts: self.small_number(),
            last_error: self.text(500),
            create_time: self.time(),
            update_time: self.time(),
        }
    }

    fn credit_entry(&mut self) -> CreditEntry {
        CreditEntry {
            user_id: self.text(text::EXTERNAL_ID_CHARACTERS_MAX),
            number: self.number(),
            amount: self.number(),
            balance_after: self.number(),
            reason: self.text(REASON_CHARACTERS_MAX),
            reference: self.text(REFERENCE_CHARACTERS_MAX),
            actor: Actor { kind: ActorKind::User, id: self.text(text::EXTERNAL_ID_CHARACTERS_MAX) },
            create_time: self.time(),
        }
    }

    fn tenant(&mut self) -> TenantRecord {
        TenantRecord {
            id: TenantId::from_uuid(self.id()),
            kind: self.one_of(TenantKind::ALL),
            issuer: self.text(500),
            external_id: self.text(text::EXTERNAL_ID_CHARACTERS_MAX),
            preset: self.text(64),
            state: self.one_of(TenantState::ALL),
            state_time: self.maybe(Self::time),
            state_reason: self.text(255),
            create_time: self.time(),
            deletion: DeletionProgress {
                file_count: self.number(),
                object_count: self.number(),
                bytes: self.number(),
                erased_row_count: self.number(),
                erased_object_count: self.number(),
                erased_bytes: self.number(),
                problem: self.text(500),
            },
            is_read_only: true,
            rate_limits: self.request_limits(),
        }
    }

    fn request_limits(&self) -> RequestLimits {
        let mut limits = RequestLimits::default();
        RequestLimit::ALL.into_iter().for_each(|limit| limits.set(limit, PER_SECOND_MAX));
        limits
    }

    fn policy(&mut self) -> StoredPolicy {
        let mut policy = Policy::preset("crm").unwrap();
        let types: Vec<String> = (0..TYPES_MAX).map(|_| "x".repeat(255)).collect();
        for number in 0..CATEGORIES_MAX {
            let name = format!("{number:0>width$}", width = NAME_CHARACTERS_MAX);
            let category = Category {
                visibility: Visibility::Public,
                readers: ReaderRule::AttachedClasses,
                types: types.clone(),
                links: Some(LinkRules { are_forbidden: true, need_password: true, need_expiry: true }),
            };
            policy.categories.insert(name, category);
        }
        StoredPolicy { policy, revision: i64::MAX, is_read_only: true }
    }
}

/// Asserts that one record, as an element of its list, does not exceed its bound.
fn assert_bound(encoded_bytes: usize, bytes_max: usize, what: &str) {
    assert!(encoded_bytes <= bytes_max, "{what}: {encoded_bytes} bytes encoded, the bound is {bytes_max}");
}

fn files(file: v1::File) -> usize {
    v1::ListFilesResponse { files: vec![file], ..Default::default() }.encoded_len()
}

fn assert_bounds(draw: &mut Draw) {
    let drawn = draw.file();
    assert_bound(
        files(file::to_full_proto(drawn.clone())),
        encoded_size::full_file_bytes_max(&drawn),
        "file in view FULL",
    );
    assert_bound(
        files(file::to_basic_proto(drawn.clone())),
        encoded_size::basic_file_bytes_max(&drawn),
        "file in view BASIC",
    );

    let drawn = draw.version();
    let bytes_max = encoded_size::version_bytes_max(&drawn);
    let list = FileVersionList {
        current_version: drawn.version,
        versions: vec![drawn],
        next_page_token: String::new(),
    };
    assert_bound(version::list_to_proto(list).encoded_len(), bytes_max, "version");

    let drawn = draw.upload();
    let bytes_max = encoded_size::upload_bytes_max(&drawn);
    let uploads = vec![upload::to_proto(drawn, usize::MAX)];
    let list = v1::ListUploadsResponse { uploads, ..Default::default() };
    assert_bound(list.encoded_len(), bytes_max, "upload");

    let drawn = draw.webhook();
    let bytes_max = encoded_size::webhook_bytes_max(&drawn);
    let list = v1::ListWebhooksResponse { webhooks: vec![webhook::to_proto(drawn)], ..Default::default() };
    assert_bound(list.encoded_len(), bytes_max, "webhook");

    let drawn = draw.share();
    let bytes_max = encoded_size::share_bytes_max(&drawn);
    let shares = vec![share::to_proto(drawn, Timestamp::UNIX_EPOCH)];
    let list = v1::ListSharesResponse { shares, ..Default::default() };
    assert_bound(list.encoded_len(), bytes_max, "share");

    let drawn = draw.delivery();
    let bytes_max = encoded_size::delivery_bytes_max(&drawn.last_error);
    let deliveries = vec![webhook::delivery_to_proto(drawn)];
    let list = v1::ListWebhookDeliveriesResponse { deliveries, ..Default::default() };
    assert_bound(list.encoded_len(), bytes_max, "delivery");

    let drawn = draw.credit_entry();
    let bytes_max = encoded_size::credit_entry_bytes_max(&drawn);
    let list = CreditEntryPage { entries: vec![drawn], next_page_token: String::new() };
    assert_bound(credits::page_to_proto(list).encoded_len(), bytes_max, "credit entry");

    let drawn = draw.tenant();
    let bytes_max = encoded_size::tenant_bytes_max(&drawn);
    let list =
        admin::v1::ListTenantsResponse { tenants: vec![tenant::to_proto(drawn)], ..Default::default() };
    assert_bound(list.encoded_len(), bytes_max, "tenant");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn encoded_records_do_not_exceed_their_bounds(seed in any::<u64>()) {
        assert_bounds(&mut Draw { state: Some(seed) });
    }
}

#[test]
fn records_at_their_limits_do_not_exceed_their_bounds() {
    assert_bounds(&mut Draw { state: None });
}

#[test]
fn bound_of_a_file_is_close_to_its_size() {
    let drawn = Draw { state: None }.file();
    let bytes_max = encoded_size::full_file_bytes_max(&drawn);
    let bytes = files(file::to_full_proto(drawn));
    assert!(bytes_max - bytes < 1_024, "{bytes} bytes encoded, the bound is {bytes_max}");
}

#[test]
fn every_message_of_a_stream_is_below_4_mib() {
    let mut draw = Draw { state: None };
    let stored = StoredAuditEntry {
        create_time: draw.time(),
        n: i64::MAX,
        entry: AuditEntry::system(AuditAction::PolicyUpdate, serde_json::json!(draw.policy().policy)),
    };
    for record in [
        ExportRecord::Tenant(Box::new(draw.tenant()), Box::new(draw.policy())),
        ExportRecord::File(Box::new(draw.file())),
        ExportRecord::Audit(Box::new(stored)),
    ] {
        let bytes = tenant::export_record_to_proto(record).encoded_len();
        assert!(bytes <= RESPONSE_BYTES_MAX, "{bytes} bytes");
    }
    let event = FileEvent {
        position: draw.position(),
        kind: EventKind::FileCreated,
        subject: EventSubject::File { id: FileId::from_uuid(draw.id()), version: draw.small_number() },
        revision: draw.number(),
        actor_id: draw.text(text::EXTERNAL_ID_CHARACTERS_MAX),
        time: draw.time(),
        file: Some(draw.file()),
    };
    let message = WatchMessage { body: MessageBody::Event(Box::new(event)), cursor: draw.text(255) };
    assert!(watch::message_to_proto(message).encoded_len() <= RESPONSE_BYTES_MAX);
}

#[test]
fn response_to_a_batch_without_pages_is_below_4_mib() {
    let files = vec![file::to_basic_proto(Draw { state: None }.file()); batch_get::FILES_MAX];
    let response = v1::BatchDeleteFilesResponse { files, ..Default::default() };
    assert!(response.encoded_len() <= RESPONSE_BYTES_MAX);
}
