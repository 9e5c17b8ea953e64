//! The client library of the `strongroom.v1` API: uploads from any `AsyncRead`, downloads that are verified
//! as they arrive, and all other calls, with deadlines, retries and errors that state what to do.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use strongroom::client::{Client, ClientOptions};
//! use strongroom::proto::v1::{DownloadFileRequest, UploadSpec};
//!
//! let client = Client::connect(ClientOptions::new("http://127.0.0.1:50051", "token".into())).await?;
//! let spec = UploadSpec { name: "minutes.pdf".into(), ..Default::default() };
//! let response = client.upload_file("minutes.pdf".as_ref(), spec, |_sent_bytes| {}).await?;
//!
//! let file_id = response.file.map(|file| file.id).unwrap_or_default();
//! let mut copy = tokio::fs::File::create("copy.pdf").await?;
//! let request = DownloadFileRequest { file_id, ..Default::default() };
//! client.download_to(request, &mut copy, |_written_bytes| {}).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Guarantees:
//! * **No incomplete file is stored.** If the source fails or the caller drops the future, the stream ends
//!   without a finish message, and the server stores no file.
//! * **Damage is detected.** Each chunk carries a CRC32C in both directions, and the SHA-256 of a whole file
//!   is compared at its end.
//! * **An interrupted upload is resumed.** [`Client::upload_resumable`] sends only bytes that the server has
//!   not stored. Another process can resume the upload by its id.
//! * **A watch misses no event.** If its stream breaks, it resumes after the last message that it returned.
//! * **A retried call takes effect once.** Reads and changes are retried while the server is unavailable.
//!   Each change carries a request id, generated here if the caller provides none. An upload is retried only
//!   if its source can be reopened.
//!
//! Failed calls return a [`ClientError`]. Its message states what to do.
//!
//! This module imports only the generated code, so that it can become a separate crate.

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
mod shares;
mod tenants;
mod upload;
mod upload_messages;
mod visits;
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
pub use visits::SharedFile;
