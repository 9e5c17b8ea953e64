//! Random values: request ids, and the jitter of retries.

use std::time::Duration;

use uuid::Uuid;

/// Generates a random UUID. Version 4, because it does not reveal its creation time.
#[allow(
    clippy::disallowed_methods,
    reason = "a library for other programs must not require an id source from them"
)]
fn generate_uuid() -> Uuid {
    Uuid::new_v4()
}

/// Generates a request id if the caller provided none.
pub(super) fn fill_request_id(request_id: &mut String) {
    if request_id.is_empty() {
        *request_id = generate_uuid().to_string();
    }
}

/// Returns a random duration between half of `delay` and `delay`, so that the clients of a restarted server
/// do not retry at the same time.
pub(super) fn add_jitter(delay: Duration) -> Duration {
    let share = f64::from(generate_uuid().as_fields().0) / f64::from(u32::MAX);
    delay.mul_f64(0.5 + share / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_is_between_half_and_all_of_the_delay() {
        for _ in 0..1_000 {
            let delay = add_jitter(Duration::from_secs(2));
            assert!((Duration::from_secs(1)..=Duration::from_secs(2)).contains(&delay), "{delay:?}");
        }
    }

    #[test]
    fn request_id_of_the_caller_is_kept() {
        let mut request_id = "mine".to_owned();
        fill_request_id(&mut request_id);
        assert_eq!(request_id, "mine");
    }
}
