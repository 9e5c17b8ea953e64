//! Conversions of download requests and of the messages of a download.

use std::ops::Range;

use bytes::Bytes;

use super::file;
use crate::{
    app::{
        access::Disposition,
        files::{Download, DownloadPiece, DownloadRequest},
    },
    domain::{
        access_log::ClientOrigin, block_checksums::Crc32c, byte_range::ByteRangeRequest, ids::FileId,
        violations::Violations,
    },
    proto::v1::{self, download_file_response::Message},
};

pub(in crate::grpc) fn request_from_proto(
    request: v1::DownloadFileRequest,
    client: ClientOrigin,
) -> Result<DownloadRequest, Violations> {
    let mut violations = Violations::new();
    let id = violations.ok_or_add("file_id", request.file_id.parse::<FileId>().map_err(|_| "must be a UUID"));
    if request.version < 0 {
        violations.add("version", "must not be negative; 0 means the current version");
    }
    match (id, ByteRangeRequest::new(request.read_offset, request.read_limit)) {
        (Some(file), Ok(range)) if violations.is_empty() => {
            let v1::DownloadFileRequest { version, if_etag, .. } = request;
            Ok(DownloadRequest { file, version, range, if_etag, client })
        }
        (_, range) => {
            for violation in range.err().iter().flat_map(Violations::iter) {
                violations.add(violation.field.clone(), violation.description.clone());
            }
            Err(violations)
        }
    }
}

/// Builds the first message of a download.
pub(in crate::grpc) fn header_to_proto(download: &Download) -> v1::DownloadFileResponse {
    let range = range_to_proto(&download.range, download.total_bytes);
    let header = v1::DownloadHeader {
        file: Some(file::to_full_proto(download.file.clone())),
        range: Some(range),
        sha256: Bytes::copy_from_slice(download.sha256.as_bytes()),
        disposition: disposition_to_proto(download.disposition).into(),
    };
    v1::DownloadFileResponse { message: Some(Message::Header(header)) }
}

fn disposition_to_proto(disposition: Disposition) -> v1::Disposition {
    match disposition {
        Disposition::Inline => v1::Disposition::Inline,
        Disposition::Attachment => v1::Disposition::Attachment,
    }
}

pub(in crate::grpc) fn range_to_proto(range: &Range<u64>, total_bytes: u64) -> v1::ContentRange {
    v1::ContentRange {
        offset: file::size_to_proto(range.start),
        length: file::size_to_proto(range.end - range.start),
        total_bytes: file::size_to_proto(total_bytes),
    }
}

impl From<v1::DownloadChunk> for v1::DownloadFileResponse {
    fn from(chunk: v1::DownloadChunk) -> Self {
        Self { message: Some(Message::Chunk(chunk)) }
    }
}

impl From<v1::DownloadChunk> for v1::DownloadShareResponse {
    fn from(chunk: v1::DownloadChunk) -> Self {
        Self { message: Some(v1::download_share_response::Message::Chunk(chunk)) }
    }
}

/// Builds a chunk, with its checksum.
pub(in crate::grpc) fn chunk_to_proto(offset: u64, piece: DownloadPiece) -> v1::DownloadChunk {
    let DownloadPiece { data, crc32c } = piece;
    let crc32c = crc32c.unwrap_or_else(|| Crc32c::compute([&*data])).as_u32();
    v1::DownloadChunk { offset: file::size_to_proto(offset), data, crc32c }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_has_its_crc32c() {
        let checksum = |piece| chunk_to_proto(0, piece).crc32c;
        assert_eq!(checksum(Bytes::from_static(b"123456789").into()), 0xE306_9283);
        let data = Bytes::from_static(b"123456789");
        let crc32c = Some(Crc32c::compute([&*data]));
        assert_eq!(checksum(DownloadPiece { data, crc32c }), 0xE306_9283);
    }

    #[test]
    fn all_violations_of_a_download_are_reported() {
        let request = v1::DownloadFileRequest {
            file_id: "7".into(),
            version: -1,
            read_limit: -1,
            ..v1::DownloadFileRequest::default()
        };
        let Err(violations) = request_from_proto(request, ClientOrigin::default()) else {
            panic!("accepted")
        };
        let fields: Vec<&str> = violations.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["file_id", "version", "read_limit"]);
    }
}
