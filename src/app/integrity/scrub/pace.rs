//! The pace of one read, so that a large object is not read faster than the configured rate.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// The bytes that are read without pauses.
const UNPACED_BYTES: u64 = 64 << 20;

/// The pace of the read of one object.
pub(super) struct ReadPace {
    started: Instant,
    bytes_per_second: u64,
    read_bytes: u64,
}

impl ReadPace {
    /// Begins a read at a rate of at least 1.
    pub(super) fn start(bytes_per_second: u64) -> Self {
        Self { started: Instant::now(), bytes_per_second: bytes_per_second.max(1), read_bytes: 0 }
    }

    /// Counts bytes that were read, and waits until the read does not exceed the rate.
    pub(super) async fn wait_after(&mut self, bytes: usize) {
        self.read_bytes += bytes as u64;
        let paced_bytes = self.read_bytes.saturating_sub(UNPACED_BYTES);
        if paced_bytes == 0 {
            return;
        }
        let micros = u128::from(paced_bytes) * 1_000_000 / u128::from(self.bytes_per_second);
        let due = Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
        sleep(due.saturating_sub(self.started.elapsed())).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The clock is paused and advances to the next timer when all tasks wait, so no time passes.
    #[tokio::test(start_paused = true)]
    async fn large_objects_are_read_at_the_rate() {
        let started = Instant::now();
        let mut pace = ReadPace::start(1 << 20);
        for _ in 0..64 {
            pace.wait_after(1 << 20).await;
        }
        assert_eq!(started.elapsed(), Duration::ZERO, "the first bytes are not paced");
        for _ in 0..10 {
            pace.wait_after(1 << 20).await;
        }
        assert!(started.elapsed() >= Duration::from_secs(10), "{:?}", started.elapsed());
        assert!(started.elapsed() < Duration::from_secs(11), "{:?}", started.elapsed());
    }
}
