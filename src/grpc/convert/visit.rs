//! Conversions of the messages of visitors of shares.

use bytes::Bytes;
use secrecy::ExposeSecret as _;

use super::{file, time};
use crate::{
    app::visitors::{DownloadShareRequest, ResolveShareRequest, ResolvedShare, ShareDownload},
    domain::{byte_range::ByteRangeRequest, permission::Permission, violations::Violations},
    proto::v1::{self, download_share_response::Message},
};

pub(in crate::grpc) fn resolve_from_proto(
    request: v1::ResolveShareRequest,
) -> Result<ResolveShareRequest, Violations> {
    if request.token.is_empty() {
        return Err(Violations::one("token", "must not be empty"));
    }
    Ok(ResolveShareRequest { token: request.token.into(), password: request.password.into() })
}

pub(in crate::grpc) fn resolved_to_proto(resolved: ResolvedShare) -> v1::ResolveShareResponse {
    v1::ResolveShareResponse {
        file_name: resolved.name,
        version: resolved.version,
        size_bytes: file::size_to_proto(resolved.size_bytes),
        mime_type: resolved.mime_type,
        permission: permission_to_proto(resolved.permission).into(),
        share_expire_time: resolved.expire_time.map(time::to_proto),
        grant: resolved.grant.expose_secret().to_owned(),
        grant_expire_time: Some(time::to_proto(resolved.grant_expire_time)),
    }
}

fn permission_to_proto(permission: Permission) -> v1::VisitPermission {
    match permission {
        Permission::View => v1::VisitPermission::View,
        Permission::Download | Permission::Delete => v1::VisitPermission::Download,
    }
}

pub(in crate::grpc) fn download_from_proto(
    request: v1::DownloadShareRequest,
) -> Result<DownloadShareRequest, Violations> {
    let mut violations = Violations::new();
    if request.grant.is_empty() {
        violations.add("grant", "must not be empty");
    }
    if request.if_version < 0 {
        violations.add("if_version", "must not be negative; 0 means any version");
    }
    match ByteRangeRequest::new(request.read_offset, request.read_limit) {
        Ok(range) if violations.is_empty() => {
            Ok(DownloadShareRequest { grant: request.grant.into(), range, if_version: request.if_version })
        }
        range => {
            for violation in range.err().iter().flat_map(Violations::iter) {
                violations.add(violation.field.clone(), violation.description.clone());
            }
            Err(violations)
        }
    }
}

/// Builds the first message of a download.
pub(in crate::grpc) fn header_to_proto(download: &ShareDownload) -> v1::DownloadShareResponse {
    let header = v1::VisitHeader {
        file_name: download.name.clone(),
        version: download.version,
        mime_type: download.mime_type.clone(),
        permission: permission_to_proto(download.permission).into(),
        range: Some(super::download::range_to_proto(&download.range, download.total_bytes)),
        sha256: Bytes::copy_from_slice(download.sha256.as_bytes()),
    };
    v1::DownloadShareResponse { message: Some(Message::Header(header)) }
}
