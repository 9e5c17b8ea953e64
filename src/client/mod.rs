//! The client library: uploads from any `AsyncRead`, downloads that are checked while they arrive, and every
//! other call of `strongroom.v1`, with deadlines, retries and errors that say what to do.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use strongroom::client::{Client, ClientOptions};
//! use strongroom::proto::v1::{DownloadFileRequest, UploadSpec};
//!
//! let client = Client::connect(ClientOptions::new("http://127.0.0.1:50051", "token".into())).await?;
//! let spec = UploadSpec { name: "minutes.pdf".into(), ..Default::default() };
//! let stored = client.upload_file("minutes.pdf".as_ref(), spec, |_sent| {}).await?;
//!
//! let file_id = stored.file.map(|file| file.id).unwrap_or_default();
//! let mut copy = tokio::fs::File::create("copy.pdf").await?;
//! let request = DownloadFileRequest { file_id, ..Default::default() };
//! client.download_to(request, &mut copy, |_received| {}).await?;
//! # Ok(())
//! # }
//! ```
//!
//! What it promises:
//! * **No finish, no file.** A source that fails, and a caller that drops the future, end the stream without
//!   a finish.
//! * **Nothing damaged passes for whole.** Chunks travel with a CRC32C in both directions, and the SHA-256 of
//!   a whole file is compared at its end.
//! * **A broken upload goes on where it broke.** [`Client::upload_resumable`] sends again only what the server had not
//!   stored, also in another process with the id of the upload.
//! * **A watch misses nothing.** When its stream breaks it goes on behind the last message that was handed out.
//! * **A retry has one effect.** Reads are repeated when the server is away; changes are too, because each
//!   carries a request id, the caller's or one minted here. An upload is repeated only where its source can
//!   be opened again.
//!
//! It imports the generated code and nothing else of the service, so that it can move out one day.

#![warn(missing_docs)]

mod advice;
mod connection;
mod download;
mod error;
mod files;
mod imports;
mod policies;
mod quotas;
mod randomness;
mod resume;
mod retry;
mod service_info;
mod tenants;
mod upload;
mod upload_messages;
mod watch;
mod webhooks;

#[cfg(test)]
pub(crate) mod fake_service;
#[cfg(test)]
mod tests;

pub use connection::{Client, ClientOptions};
pub use download::Download;
pub use error::{ClientError, FieldViolation, Rejection};
pub use retry::RetryPolicy;
pub use tonic::Code;
