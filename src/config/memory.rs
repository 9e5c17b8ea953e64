//! The memory bound of a configuration. It depends on settings only, not on the number of clients.

use std::fmt;

use super::Config;
use crate::domain::block_checksums::BLOCK_SIZE_BYTES;

const MIB: u64 = 1024 * 1024;

/// Code, caches, database connections, TLS state and the HTTP server. The measured value of an idle process
/// is well below this.
const BASE_BYTES: u64 = 64 * MIB;

/// The memory of a request without its data: its state in the server and its read buffers. Uploads of small
/// chunks need most: 110 KiB, measured with a thousand of them. Block checksums of a download take up to 32 KiB.
const REQUEST_BYTES: u64 = 160 * 1024;

/// The memory of a page of records while it is read: each connection to the database reads one at a time. A
/// page ends at 3 MiB of encoded records or 12 MiB of decoded ones. Records are read in batches of 64
/// (`app::pages`), each of which takes at most 30 MiB.
const PAGE_BYTES: u64 = 40 * MIB;

/// The maximum memory of the process by component, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryBound {
    /// Memory without any clients.
    pub base_bytes: u64,
    /// Data that was received but not yet read: requests times their stream window, or connections times
    /// their connection window if that is less.
    pub windows_bytes: u64,
    /// Requests in progress, without their data.
    pub requests_bytes: u64,
    /// Buffers of uploads, and chunks that wait for a buffer.
    pub upload_budget_bytes: u64,
    /// Messages being received, and decoded messages whose requests are not validated yet.
    pub decoding_bytes: u64,
    /// Responses that clients have not read, and the pages of records that are being read from the database.
    pub responses_bytes: u64,
    /// Chunks of downloads that are read ahead, and for each download the block that is being verified.
    pub downloads_bytes: u64,
}

impl MemoryBound {
    pub(super) fn compute(config: &Config) -> Self {
        let product =
            |factors: &[u64]| factors.iter().fold(1, |product: u64, factor| product.saturating_mul(*factor));
        let (server, uploads, downloads) = (&config.server, &config.uploads, &config.downloads);
        Self {
            base_bytes: BASE_BYTES,
            // A stream that is rejected releases its window immediately.
            windows_bytes: product(&[
                server.requests_max as u64,
                u64::from(server.http2.stream_window_bytes),
            ])
            .min(product(&[server.connections_max as u64, u64::from(server.http2.connection_window_bytes)])),
            requests_bytes: product(&[server.requests_max as u64, REQUEST_BYTES]),
            upload_budget_bytes: (uploads.byte_budget_bytes as u64)
                .saturating_add(uploads.waiting_bytes_max() as u64),
            decoding_bytes: product(&[uploads.decode_permits as u64, server.message_size_max_bytes as u64])
                .max(uploads.part_message_bytes_max() as u64)
                .saturating_add(config.decoded_bytes_max() as u64),
            responses_bytes: product(&[config.database.pool_size_max as u64, PAGE_BYTES])
                .saturating_add(server.unread_responses_max_bytes as u64),
            downloads_bytes: product(&[
                downloads.streams_max as u64,
                product(&[downloads.chunks_in_flight_max as u64, downloads.chunk_size_bytes as u64])
                    .saturating_add(BLOCK_SIZE_BYTES),
            ]),
        }
    }

    /// Returns the total in bytes.
    pub fn total_bytes(&self) -> u64 {
        [
            self.base_bytes,
            self.windows_bytes,
            self.requests_bytes,
            self.upload_budget_bytes,
            self.decoding_bytes,
            self.responses_bytes,
            self.downloads_bytes,
        ]
        .into_iter()
        .fold(0, u64::saturating_add)
    }
}

impl fmt::Display for MemoryBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes.div_ceil(MIB);
        write!(
            f,
            "at most {} MiB = {} base + {} windows + {} requests + {} upload buffers + {} decoding + \
             {} responses + {} downloads",
            mib(self.total_bytes()),
            mib(self.base_bytes),
            mib(self.windows_bytes),
            mib(self.requests_bytes),
            mib(self.upload_budget_bytes),
            mib(self.decoding_bytes),
            mib(self.responses_bytes),
            mib(self.downloads_bytes),
        )
    }
}
