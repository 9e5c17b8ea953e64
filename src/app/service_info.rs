//! Describes this server: its version, its limits and its features. Every value is that of the running
//! configuration, or the constant that enforces the limit.

use std::time::Duration;

use super::{
    App, Principal,
    files::{batch_delete, batch_get},
    imports, pages,
    uploads::direct::create as direct,
};
use crate::{
    domain::{text, upload_spec::ATTACHMENTS_MAX},
    storage::PART_NUMBER_MAX,
};

/// The limits of the transport, which the entry point enforces.
#[derive(Debug, Clone, Copy)]
pub struct TransportLimits {
    /// The maximum size of a request message, in bytes.
    pub message_bytes_max: usize,
    /// The maximum size of a message that contains a whole part.
    pub part_message_bytes_max: usize,
    /// The maximum size of a message to a service that receives no file data.
    pub small_message_bytes_max: usize,
    /// The maximum size of the headers of a request.
    pub header_list_bytes_max: u32,
}

/// The description of this server.
#[derive(Debug, Clone)]
pub struct ServiceInfo {
    pub version: &'static str,
    pub transport: TransportLimits,
    pub limits: ServiceLimits,
    pub features: ServiceFeatures,
}

/// The limits that apply to every caller.
#[derive(Debug, Clone)]
pub struct ServiceLimits {
    pub chunk_bytes_max: usize,
    pub part_size_bytes: usize,
    pub parts_max: u32,
    pub direct_parts_max: u64,
    pub page_size_default: u32,
    pub page_size_max: u32,
    pub page_bytes_max: usize,
    pub metadata_bytes_max: usize,
    pub metadata_elements_max: usize,
    pub metadata_depth_max: usize,
    pub tags_max: usize,
    pub tag_characters_max: usize,
    pub attachments_max: usize,
    pub batch_get_files_max: usize,
    pub batch_delete_files_max: usize,
    pub find_imported_keys_max: usize,
    pub upload_idle_timeout: Duration,
    pub upload_lifetime: Duration,
    pub download_idle_timeout: Duration,
    pub watch_heartbeat_interval: Duration,
    pub request_id_retention: Duration,
    pub event_retention: Duration,
}

/// The optional features. Each is true only if this server provides it.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::struct_excessive_bools, reason = "the features are independent of each other")]
pub struct ServiceFeatures {
    pub direct_upload: bool,
    pub edge: bool,
    pub tus: bool,
    pub scanning: bool,
    pub variants: bool,
}

/// Returns the description of this server. Every authenticated caller may read it.
pub fn get_service_info(app: &App, _principal: &Principal, transport: TransportLimits) -> ServiceInfo {
    let limits = &app.limits;
    ServiceInfo {
        version: env!("CARGO_PKG_VERSION"),
        transport,
        limits: ServiceLimits {
            chunk_bytes_max: limits.uploads.chunk_size_max_bytes,
            part_size_bytes: limits.uploads.part_size_bytes,
            parts_max: PART_NUMBER_MAX,
            direct_parts_max: direct::PART_COUNT_MAX,
            page_size_default: limits.lists.page_size_default,
            page_size_max: limits.lists.page_size_max,
            page_bytes_max: pages::RECORDS_BYTES_MAX,
            metadata_bytes_max: text::METADATA_BYTES_MAX,
            metadata_elements_max: text::METADATA_ELEMENTS_MAX,
            metadata_depth_max: text::METADATA_DEPTH_MAX,
            tags_max: text::TAGS_MAX,
            tag_characters_max: text::TAG_CHARACTERS_MAX,
            attachments_max: ATTACHMENTS_MAX,
            batch_get_files_max: batch_get::FILES_MAX,
            batch_delete_files_max: batch_delete::FILES_MAX,
            find_imported_keys_max: imports::LOOKUP_KEYS_MAX,
            upload_idle_timeout: limits.uploads.idle_timeout(),
            upload_lifetime: limits.uploads.lease_duration(),
            download_idle_timeout: limits.downloads.idle_timeout(),
            watch_heartbeat_interval: limits.watches.heartbeat_interval(),
            request_id_retention: limits.retention.idempotency_retention(),
            event_retention: limits.retention.event_retention(),
        },
        features: ServiceFeatures {
            direct_upload: direct::is_supported(app),
            // This release provides none of these.
            edge: false,
            tus: false,
            scanning: false,
            variants: false,
        },
    }
}
