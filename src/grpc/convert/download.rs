//! Downloads: what is asked for, and the messages that answer it.

use bytes::Bytes;
use crc_fast::CrcAlgorithm;

use super::file;
use crate::{
    app::files::download::{Download, DownloadRequest},
    domain::{byte_range::ByteRangeRequest, ids::FileId, violations::Violations},
    proto::v1::{self, download_file_response::Message},
};

/// What a download asks for.
pub(in crate::grpc) fn request(request: v1::DownloadFileRequest) -> Result<DownloadRequest, Violations> {
    let mut wrong = Violations::new();
    let id = wrong.ok_or_add("file_id", request.file_id.parse::<FileId>().map_err(|_| "must be a UUID"));
    if request.version < 0 {
        wrong.add("version", "must not be negative; 0 is the current one");
    }
    match (id, ByteRangeRequest::new(request.read_offset, request.read_limit)) {
        (Some(file), Ok(range)) if wrong.is_empty() => {
            Ok(DownloadRequest { file, version: request.version, range, if_etag: request.if_etag })
        }
        (_, range) => {
            for violation in range.err().iter().flat_map(Violations::iter) {
                wrong.add(violation.field.clone(), violation.description.clone());
            }
            Err(wrong)
        }
    }
}

/// The first message: what is about to be sent.
pub(in crate::grpc) fn header(download: &Download) -> v1::DownloadFileResponse {
    let range = v1::ContentRange {
        offset: file::size(download.range.start),
        length: file::size(download.range.end - download.range.start),
        total_bytes: file::size(download.total_bytes),
    };
    let header = v1::DownloadHeader {
        file: Some(file::full(download.file.clone())),
        range: Some(range),
        sha256: Bytes::copy_from_slice(download.sha256.as_bytes()),
    };
    v1::DownloadFileResponse { message: Some(Message::Header(header)) }
}

/// Some of the bytes, with their checksum.
pub(in crate::grpc) fn chunk(offset: u64, data: Bytes) -> v1::DownloadFileResponse {
    let crc32c = crc32c(&data);
    let chunk = v1::DownloadChunk { offset: file::size(offset), data, crc32c };
    v1::DownloadFileResponse { message: Some(Message::Chunk(chunk)) }
}

/// CRC-32C (Castagnoli), which its catalogue calls CRC-32/ISCSI.
fn crc32c(data: &[u8]) -> u32 {
    #[allow(clippy::cast_possible_truncation, reason = "a CRC-32 has 32 bits, in a type for all CRCs")]
    return crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, data) as u32;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
    }

    #[test]
    fn everything_wrong_with_a_download_is_reported_at_once() {
        let wrong = v1::DownloadFileRequest {
            file_id: "7".into(),
            version: -1,
            read_limit: -1,
            ..v1::DownloadFileRequest::default()
        };
        let Err(wrong) = request(wrong) else { panic!("accepted") };
        let fields: Vec<&str> = wrong.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["file_id", "version", "read_limit"]);
    }
}
