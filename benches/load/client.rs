//! The client: the generated gRPC client, with all checksums computed in advance, so that the client adds as
//! little as possible to the measurements.

use bytes::Bytes;
use futures::{Stream, stream};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use strongroom::domain::clock::{IdSource as _, SystemIds};
use strongroom::proto::v1::{
    DownloadFileRequest, ListFilesRequest, ListFilesResponse, UploadChunk, UploadFileRequest, UploadFinish,
    UploadSpec, download_file_response, file_service_client::FileServiceClient, upload_file_request::Message,
};
use tonic::{
    Request,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};

use crate::Outcome;

/// The same settings as in the client library; see `ClientOptions`.
const FRAME_SIZE_BYTES_MAX: u32 = 256 * 1024;
const STREAM_WINDOW_SIZE_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_SIZE_BYTES: u32 = 2 * 1024 * 1024;

/// The block that all content repeats. The discard store relies on this size.
pub(crate) const BLOCK_SIZE_BYTES: usize = 1024 * 1024;

pub(crate) type Files = FileServiceClient<Channel>;
pub(crate) type Token = MetadataValue<Ascii>;

/// Opens a new connection.
pub(crate) async fn connect(endpoint: &str) -> Outcome<Files> {
    let channel = Endpoint::from_shared(endpoint.to_owned())?
        .tcp_nodelay(true)
        .max_frame_size(FRAME_SIZE_BYTES_MAX)
        .initial_stream_window_size(STREAM_WINDOW_SIZE_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_SIZE_BYTES)
        .connect()
        .await?;
    Ok(FileServiceClient::new(channel))
}

pub(crate) fn bearer(token: &SecretString) -> Outcome<Token> {
    Ok(format!("Bearer {}", token.expose_secret()).parse()?)
}

fn request<T>(message: T, token: &Token) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", token.clone());
    request
}

/// The content of an upload: one block, repeated.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    block: Bytes,
    block_crc32c: u32,
    blocks: u64,
    sha256: Bytes,
}

impl Content {
    /// Creates content of this size, which is at most one block or a multiple of a block.
    pub(crate) fn new(size_bytes: u64) -> Self {
        let block_size = usize::try_from(size_bytes).unwrap_or(usize::MAX).min(BLOCK_SIZE_BYTES);
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut block = Vec::with_capacity(block_size + 8);
        while block.len() < block_size {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            block.extend_from_slice(&state.to_be_bytes());
        }
        block.truncate(block_size);
        let blocks = size_bytes / block_size as u64;
        let mut digest = Sha256::new();
        (0..blocks).for_each(|_| digest.update(&block));
        Self {
            block_crc32c: crc_fast::crc32_iscsi(&block),
            block: block.into(),
            blocks,
            sha256: Bytes::copy_from_slice(&digest.finalize()),
        }
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.blocks * self.block.len() as u64
    }

    pub(crate) fn block(&self) -> &Bytes {
        &self.block
    }

    fn messages(
        &self,
        name: String,
        request_id: String,
    ) -> impl Stream<Item = UploadFileRequest> + Send + use<> {
        let size_bytes = i64::try_from(self.size_bytes()).unwrap_or(i64::MAX);
        let spec = UploadSpec { name, request_id, size_bytes: Some(size_bytes), ..UploadSpec::default() };
        let Self { block, block_crc32c, blocks, sha256 } = self.clone();
        let step = i64::try_from(block.len()).unwrap_or(i64::MAX);
        let chunks = (0..i64::try_from(blocks).unwrap_or(i64::MAX)).map(move |number| {
            Message::Chunk(UploadChunk {
                offset: number * step,
                data: block.clone(),
                crc32c: Some(block_crc32c),
            })
        });
        let finish = Message::Finish(UploadFinish { size_bytes, sha256: Some(sha256) });
        let messages = std::iter::once(Message::Spec(spec)).chain(chunks).chain(std::iter::once(finish));
        stream::iter(messages.map(|message| UploadFileRequest { message: Some(message) }))
    }
}

/// Uploads one file and returns its id.
pub(crate) async fn upload(
    files: &mut Files,
    token: &Token,
    content: &Content,
    request_id: String,
) -> Outcome<String> {
    let messages = content.messages("load.bin".to_owned(), request_id);
    let response = files.upload_file(request(messages, token)).await?.into_inner();
    Ok(response.file.map(|file| file.id).unwrap_or_default())
}

/// Downloads one file, discards the data and returns the number of received bytes. The service verifies the
/// digest.
pub(crate) async fn download(files: &mut Files, token: &Token, file_id: &str) -> Outcome<u64> {
    let download = DownloadFileRequest { file_id: file_id.to_owned(), ..DownloadFileRequest::default() };
    let mut responses = files.download_file(request(download, token)).await?.into_inner();
    let mut received_bytes = 0;
    while let Some(response) = responses.message().await? {
        if let Some(download_file_response::Message::Chunk(chunk)) = response.message {
            received_bytes += chunk.data.len() as u64;
        }
    }
    Ok(received_bytes)
}

/// Requests one page of the files of the caller's tenant.
pub(crate) async fn list(
    files: &mut Files,
    token: &Token,
    order_by: &str,
    page_size: usize,
    page_token: &str,
) -> Outcome<ListFilesResponse> {
    let list = ListFilesRequest {
        order_by: order_by.to_owned(),
        page_size: i32::try_from(page_size)?,
        page_token: page_token.to_owned(),
        ..ListFilesRequest::default()
    };
    Ok(files.list_files(request(list, token)).await?.into_inner())
}

/// Generates a request id. Every upload has one, because idempotency is part of the measured cost.
pub(crate) fn request_id() -> String {
    SystemIds.uuid().to_string()
}
