//! Tests of the pace of clients, with a paused clock.

use std::cell::Cell;

use tokio::time::sleep;

use super::*;

const LIMITS: PaceLimits = PaceLimits {
    idle: Duration::from_secs(60),
    window: Duration::from_secs(60),
    rate_min_bytes_per_second: 1024,
};

/// The size of a large chunk.
const CHUNK_BYTES: u64 = 2 << 20;

/// Waits for one message of which some bytes arrive at an interval.
async fn receive(
    monitor: &mut PaceMonitor,
    message_bytes: u64,
    piece_bytes: u64,
    interval: Duration,
) -> Result<(), Stall> {
    let arrived = Cell::new(0);
    let mut arriving = pin!(async {
        while arrived.get() < message_bytes {
            sleep(interval).await;
            arrived.set(arrived.get() + piece_bytes);
        }
    });
    let wait = monitor.wait(0, |context| {
        let polled = arriving.as_mut().poll(context);
        let bytes = arrived.get();
        (polled, Arrived { total_bytes: bytes, incomplete_bytes: bytes })
    });
    wait.await
}

#[tokio::test(start_paused = true)]
async fn slow_but_steady_message_takes_any_time() {
    let start = Instant::now();
    let mut monitor = PaceMonitor::new(LIMITS);
    // 1,170 bytes per second.
    receive(&mut monitor, CHUNK_BYTES, 8 * 1024, Duration::from_secs(7)).await.unwrap();
    assert!(start.elapsed() > 25 * LIMITS.idle, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn message_below_the_minimum_rate_ends_with_both_rates() {
    let start = Instant::now();
    let mut monitor = PaceMonitor::new(LIMITS);
    let stall = receive(&mut monitor, CHUNK_BYTES, 4 * 1024, Duration::from_secs(7)).await.unwrap_err();
    assert_eq!(start.elapsed(), LIMITS.window);
    assert_eq!(
        stall.to_string(),
        "received 32768 bytes in 60 seconds, 546 bytes per second; the minimum is 1024 bytes per second"
    );
}

#[tokio::test(start_paused = true)]
async fn silent_client_ends_at_the_idle_time_after_its_last_byte() {
    let start = Instant::now();
    let limits = PaceLimits { rate_min_bytes_per_second: 0, ..LIMITS };
    let stall = receive(&mut PaceMonitor::new(limits), 10, 1, Duration::from_secs(61)).await.unwrap_err();
    assert_eq!((stall, start.elapsed()), (Stall::Idle(LIMITS.idle), LIMITS.idle));
    receive(&mut PaceMonitor::new(limits), 100, 1, Duration::from_secs(59)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn fast_start_does_not_compensate_for_a_slow_rest() {
    let mut monitor = PaceMonitor::new(LIMITS);
    // The time of complete messages counts too, and the window ends inside a later one.
    receive(&mut monitor, CHUNK_BYTES, CHUNK_BYTES, Duration::from_secs(59)).await.unwrap();
    let mut received = CHUNK_BYTES;
    let mut results = Vec::new();
    for bytes in [CHUNK_BYTES, 1, 1, 1] {
        let mut arriving = pin!(sleep(Duration::from_secs(31)));
        let arrived = Arrived { total_bytes: received, incomplete_bytes: 0 };
        let waited = monitor.wait(received, |context| (arriving.as_mut().poll(context), arrived)).await;
        results.push(waited.is_ok());
        received += bytes;
    }
    assert_eq!(results, [true, true, true, false]);
}
