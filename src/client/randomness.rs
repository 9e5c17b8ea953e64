//! What the library draws at random: request ids, and the jitter of its retries.

use std::time::Duration;

use uuid::Uuid;

/// A fresh request id for a caller who brought none. Version 4: it says nothing about when it was made.
#[allow(
    clippy::disallowed_methods,
    reason = "a library for other programs; it must not ask them for an id source"
)]
fn uuid() -> Uuid {
    Uuid::new_v4()
}

/// Mints a request id where the caller gave none.
pub(super) fn fill_request_id(request_id: &mut String) {
    if request_id.is_empty() {
        *request_id = uuid().to_string();
    }
}

/// Between half of `delay` and all of it, so that the clients of a server that restarts do not come back in
/// step.
pub(super) fn jittered(delay: Duration) -> Duration {
    let share = f64::from(uuid().as_fields().0) / f64::from(u32::MAX);
    delay.mul_f64(0.5 + share / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_between_half_and_all_of_the_delay() {
        for _ in 0..1_000 {
            let delay = jittered(Duration::from_secs(2));
            assert!((Duration::from_secs(1)..=Duration::from_secs(2)).contains(&delay), "{delay:?}");
        }
    }

    #[test]
    fn a_request_id_of_the_caller_is_kept() {
        let mut request_id = "mine".to_owned();
        fill_request_id(&mut request_id);
        assert_eq!(request_id, "mine");
    }
}
