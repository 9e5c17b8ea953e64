//! Waits for peers, which have their whole time also if this process is suspended or gets no processor.

use std::time::Duration;

use tokio::time::sleep;

/// The number of steps of a wait.
const STEPS: u32 = 10;

/// Waits for a peer that may send or read something for this long. The time passes in steps: while the
/// process does not run, at most one of them ends, and the tasks that read from the peer run before the next
/// one.
pub(super) async fn wait_for_peer(time: Duration) {
    for _ in 0..STEPS {
        sleep(time / STEPS).await;
    }
}
