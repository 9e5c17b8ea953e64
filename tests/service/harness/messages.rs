//! Builders of the messages of an upload.

use bytes::Bytes;
use sha2::{Digest, Sha256};
use strongroom::proto::v1::{
    File, UploadChunk, UploadFileRequest, UploadFileResponse, UploadFinish, UploadSpec,
    upload_file_request::Message,
};

/// Returns a spec with only a name.
pub(crate) fn spec(name: &str) -> UploadSpec {
    UploadSpec { name: name.to_owned(), ..UploadSpec::default() }
}

pub(crate) fn spec_message(spec: UploadSpec) -> UploadFileRequest {
    UploadFileRequest { message: Some(Message::Spec(spec)) }
}

pub(crate) fn chunk(offset: usize, data: &[u8]) -> UploadFileRequest {
    let data = Bytes::copy_from_slice(data);
    let chunk = UploadChunk { offset: offset as i64, crc32c: Some(crc32c(&data)), data };
    UploadFileRequest { message: Some(Message::Chunk(chunk)) }
}

pub(crate) fn finish(size_bytes: usize) -> UploadFileRequest {
    let finish = UploadFinish { size_bytes: size_bytes as i64, sha256: None };
    UploadFileRequest { message: Some(Message::Finish(finish)) }
}

/// Returns the spec, chunks of this size, and the finish message with the digest.
pub(crate) fn upload_messages(spec: UploadSpec, data: &[u8], chunk_size: usize) -> Vec<UploadFileRequest> {
    let mut messages = vec![spec_message(spec)];
    messages.extend(data.chunks(chunk_size).enumerate().map(|(n, data)| chunk(n * chunk_size, data)));
    let finish = UploadFinish { size_bytes: data.len() as i64, sha256: Some(sha256(data)) };
    messages.push(UploadFileRequest { message: Some(Message::Finish(finish)) });
    messages
}

/// Returns the messages that resume an upload: chunks of `data` from an offset, and the finish message if
/// `is_finished`.
pub(crate) fn resume_messages(
    id: &str,
    data: &[u8],
    from: usize,
    is_finished: bool,
) -> Vec<UploadFileRequest> {
    const CHUNK: usize = 40_000;
    let mut messages = vec![UploadFileRequest { message: Some(Message::UploadId(id.to_owned())) }];
    let chunks = data[from..].chunks(CHUNK).enumerate();
    messages.extend(chunks.map(|(n, data)| chunk(from + n * CHUNK, data)));
    if is_finished {
        let finish = UploadFinish { size_bytes: data.len() as i64, sha256: Some(sha256(data)) };
        messages.push(UploadFileRequest { message: Some(Message::Finish(finish)) });
    }
    messages
}

pub(crate) fn crc32c(data: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, data) as u32
}

pub(crate) fn sha256(data: &[u8]) -> Bytes {
    Bytes::copy_from_slice(&Sha256::digest(data))
}

/// Returns bytes without repetition within a part.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 31 + n / 251 + n / 65_521) as u8).collect()
}

/// Returns the id of the file in a response.
pub(crate) fn file_id(response: &UploadFileResponse) -> String {
    let File { id, .. } = response.file.as_ref().unwrap();
    id.clone()
}
