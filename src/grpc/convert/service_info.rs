//! The description of this server.

use std::time::Duration;

use crate::{
    app::service_info::{ServiceFeatures, ServiceInfo, ServiceLimits, TransportLimits},
    proto::v1,
};

/// Converts the description of this server.
pub(in crate::grpc) fn to_proto(info: ServiceInfo) -> v1::ServiceInfo {
    let ServiceFeatures { direct_upload, edge, tus, scanning, variants } = info.features;
    v1::ServiceInfo {
        version: info.version.to_owned(),
        limits: Some(limits_to_proto(&info.limits, info.transport)),
        features: Some(v1::ServiceFeatures { direct_upload, edge, tus, scanning, variants }),
    }
}

fn limits_to_proto(limits: &ServiceLimits, transport: TransportLimits) -> v1::ServiceLimits {
    v1::ServiceLimits {
        chunk_size_max_bytes: number(limits.chunk_bytes_max),
        part_size_bytes: number(limits.part_size_bytes),
        part_count_max: number(limits.parts_max),
        direct_part_count_max: number(limits.direct_parts_max),
        message_size_max_bytes: number(transport.message_bytes_max),
        upload_part_message_size_max_bytes: number(transport.part_message_bytes_max),
        small_message_size_max_bytes: number(transport.small_message_bytes_max),
        header_list_size_max_bytes: number(transport.header_list_bytes_max),
        page_size_default: number(limits.page_size_default),
        page_size_max: number(limits.page_size_max),
        page_size_max_bytes: number(limits.page_bytes_max),
        metadata_size_max_bytes: number(limits.metadata_bytes_max),
        metadata_element_count_max: number(limits.metadata_elements_max),
        metadata_depth_max: number(limits.metadata_depth_max),
        tag_count_max: number(limits.tags_max),
        tag_length_max_characters: number(limits.tag_characters_max),
        attachment_count_max: number(limits.attachments_max),
        batch_get_file_count_max: number(limits.batch_get_files_max),
        batch_delete_file_count_max: number(limits.batch_delete_files_max),
        find_imported_key_count_max: number(limits.find_imported_keys_max),
        upload_idle_timeout: duration(limits.upload_idle_timeout),
        upload_lifetime: duration(limits.upload_lifetime),
        download_idle_timeout: duration(limits.download_idle_timeout),
        watch_heartbeat_interval: duration(limits.watch_heartbeat_interval),
        request_id_retention: duration(limits.request_id_retention),
        event_retention: duration(limits.event_retention),
    }
}

fn number(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

fn duration(duration: Duration) -> Option<prost_types::Duration> {
    duration.try_into().ok()
}
