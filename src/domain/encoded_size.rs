//! Upper bounds for the encoded sizes of records. Lists end a page by them, so they must be cheap: they
//! neither encode nor allocate. `grpc/convert/encoded_size_tests.rs` compares them with encoded messages.

use serde_json::{Map, Value};

use super::{
    credits::CreditEntry, file::File, file::FileVersion, share::Share, tenant_record::TenantRecord,
    upload::Upload, user_quota::UserQuota, webhook::Webhook,
};

/// The bytes of all fields of a file that have a limited size, with their tags, and of the file's own tag and
/// length.
const FILE_FIXED_BYTES: usize = 512;
/// The same for a version.
const VERSION_FIXED_BYTES: usize = 192;
/// The same for an upload.
const UPLOAD_FIXED_BYTES: usize = 256;
/// The same for a webhook.
const WEBHOOK_FIXED_BYTES: usize = 288;
/// The same for a share.
const SHARE_FIXED_BYTES: usize = 384;
/// The same for a failed delivery of a webhook.
const DELIVERY_FIXED_BYTES: usize = 256;
/// The same for an entry of a ledger.
const CREDIT_ENTRY_FIXED_BYTES: usize = 96;
/// The same for the quota of a user.
const USER_QUOTA_FIXED_BYTES: usize = 128;
/// The same for a tenant.
const TENANT_FIXED_BYTES: usize = 288;
/// The bytes of the kind of an event in a list of kinds: its number in the contract is below 16,384.
const EVENT_KIND_BYTES: usize = 2;
/// The bytes of a number in metadata, which is a double.
const NUMBER_BYTES: usize = 9;
/// The bytes of a boolean or a null in metadata.
const BOOLEAN_BYTES: usize = 2;

/// Returns the most bytes that a file takes in a response in view FULL.
pub fn full_file_bytes_max(file: &File) -> usize {
    let tags: usize = file.tags.iter().map(|tag| text_bytes(tag)).sum();
    // The number of the field `attachments` takes two bytes.
    let attachments: usize = file
        .attachments
        .iter()
        .map(|entity| {
            let texts = [&entity.entity_type, &entity.entity_id, &entity.field];
            1 + field_bytes(texts.into_iter().map(|text| text_bytes(text)).sum())
        })
        .sum();
    let metadata = field_bytes(struct_bytes(&file.metadata));
    basic_file_bytes_max(file) + text_bytes(&file.description) + tags + attachments + metadata
}

/// Returns the weight of a file in view FULL on a page: its encoded size, or a part of its memory if that is more.
/// Metadata of many small elements takes a multiple of its encoded size in memory.
pub fn full_file_weight(file: &File) -> usize {
    let memory_bytes = object_memory_bytes(&file.metadata) / MEMORY_PER_ENCODED_BYTE;
    full_file_bytes_max(file).max(memory_bytes)
}

/// The memory of the records of a page, as a multiple of the most encoded bytes of a page.
const MEMORY_PER_ENCODED_BYTE: usize = 4;
/// The memory of the smallest node of a B-tree of fields, which has space for eleven.
const NODE_BYTES: usize = 640;
/// The memory of a field in a larger tree, and of its name.
const FIELD_BYTES: usize = 128;
/// The memory of a value in a list.
const VALUE_BYTES: usize = 32;

fn object_memory_bytes(object: &Map<String, Value>) -> usize {
    let node_bytes = if object.is_empty() { 0 } else { NODE_BYTES };
    let fields = object.iter().map(|(key, value)| FIELD_BYTES + key.len() + value_memory_bytes(value));
    node_bytes + fields.sum::<usize>()
}

fn value_memory_bytes(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(|value| VALUE_BYTES + value_memory_bytes(value)).sum(),
        Value::Object(object) => object_memory_bytes(object),
    }
}

/// Returns the most bytes that a file takes in a response in view BASIC.
pub fn basic_file_bytes_max(file: &File) -> usize {
    let texts = [
        &file.name,
        &file.original_name,
        &file.mime_type,
        &file.declared_mime_type,
        &file.category,
        &file.title,
        &file.owner_id,
        &file.created_by,
        &file.updated_by,
    ];
    let hold = file.hold.as_ref().map_or(0, |hold| text_bytes(&hold.by) + text_bytes(&hold.reason));
    FILE_FIXED_BYTES + texts.into_iter().map(|text| text_bytes(text)).sum::<usize>() + hold
}

/// Returns the most bytes that a version takes in a response.
pub fn version_bytes_max(version: &FileVersion) -> usize {
    let texts =
        [&version.mime_type, &version.declared_mime_type, &version.created_by, &version.change_description];
    VERSION_FIXED_BYTES + texts.into_iter().map(|text| text_bytes(text)).sum::<usize>()
}

/// Returns the most bytes that an upload takes in a response.
pub fn upload_bytes_max(upload: &Upload) -> usize {
    UPLOAD_FIXED_BYTES
        + text_bytes(upload.name.as_deref().unwrap_or_default())
        + text_bytes(&upload.created_by)
}

/// Returns the most bytes that a webhook takes in a response.
pub fn webhook_bytes_max(webhook: &Webhook) -> usize {
    let texts =
        [&webhook.url, &webhook.description, &webhook.state_reason, &webhook.last_error, &webhook.created_by];
    WEBHOOK_FIXED_BYTES
        + texts.into_iter().map(|text| text_bytes(text)).sum::<usize>()
        + field_bytes(webhook.kinds.len() * EVENT_KIND_BYTES)
}

/// Returns the most bytes that a share takes in a response.
pub fn share_bytes_max(share: &Share) -> usize {
    let recipients = share.recipients.iter().map(|recipient| text_bytes(recipient)).sum::<usize>();
    SHARE_FIXED_BYTES + text_bytes(&share.note) + text_bytes(&share.created_by) + recipients
}

/// Returns the most bytes that a failed delivery with this error takes in a response.
pub fn delivery_bytes_max(last_error: &str) -> usize {
    DELIVERY_FIXED_BYTES + text_bytes(last_error)
}

/// Returns the most bytes that an entry of a ledger takes in a response.
pub fn credit_entry_bytes_max(entry: &CreditEntry) -> usize {
    let texts = [&entry.user_id, &entry.reason, &entry.reference, &entry.actor.id];
    CREDIT_ENTRY_FIXED_BYTES + texts.into_iter().map(|text| text_bytes(text)).sum::<usize>()
}

/// Returns the most bytes that the quota of a user takes in a response.
pub fn user_quota_bytes_max(quota: &UserQuota) -> usize {
    USER_QUOTA_FIXED_BYTES + text_bytes(&quota.user_id)
}

/// Returns the most bytes that a tenant takes in a response.
pub fn tenant_bytes_max(tenant: &TenantRecord) -> usize {
    let texts =
        [&tenant.issuer, &tenant.external_id, &tenant.preset, &tenant.state_reason, &tenant.deletion.problem];
    TENANT_FIXED_BYTES + texts.into_iter().map(|text| text_bytes(text)).sum::<usize>()
}

/// The bytes of metadata as a `google.protobuf.Struct`.
fn struct_bytes(metadata: &Map<String, Value>) -> usize {
    metadata.iter().map(|(key, value)| field_bytes(text_bytes(key) + field_bytes(value_bytes(value)))).sum()
}

fn value_bytes(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => BOOLEAN_BYTES,
        Value::Number(_) => NUMBER_BYTES,
        Value::String(text) => text_bytes(text),
        Value::Array(values) => field_bytes(values.iter().map(|value| field_bytes(value_bytes(value))).sum()),
        Value::Object(map) => field_bytes(struct_bytes(map)),
    }
}

fn text_bytes(text: &str) -> usize {
    field_bytes(text.len())
}

/// The bytes of a field with content of this length: a tag of one byte, the length as a varint, the content.
/// The second byte of the tags of higher fields is part of the fixed bytes of their messages.
const fn field_bytes(length: usize) -> usize {
    let bits = usize::BITS - length.leading_zeros();
    let length_bytes = if bits == 0 { 1 } else { bits.div_ceil(7) as usize };
    1 + length_bytes + length
}
