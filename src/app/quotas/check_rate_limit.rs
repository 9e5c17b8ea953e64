//! Checks a limit that a backend service of the tenant defines, with the counters of this service.

use std::time::Duration;

use crate::{
    app::{App, Error},
    domain::{
        caller::Caller,
        digest::Digest,
        subject_rate::{RateDecision, SubjectEvent},
        text,
        violations::Violations,
    },
};

/// The maximum number of events within a window.
const LIMIT_MAX: i64 = 1_000_000;
/// The shortest and the longest window.
const WINDOW_MIN: Duration = Duration::from_secs(1);
pub(in crate::app) const WINDOW_MAX: Duration = Duration::from_secs(86_400);
const SUBJECT_CHARACTERS_MAX: usize = 255;
const ACTION_CHARACTERS_MAX: usize = 63;

/// A check of a limit.
#[derive(Debug, Clone)]
pub struct RateLimitCheck {
    /// Who causes the event, such as the id of a user.
    pub subject: String,
    /// The kind of event.
    pub action: String,
    pub limit: i64,
    /// `None` if it is missing or negative.
    pub window: Option<Duration>,
    /// 1 by default.
    pub cost: Option<i64>,
    pub is_peek: bool,
}

/// Checks whether an event is within its limit, and counts it if so.
///
/// # Errors
/// Returns `Invalid`, or `Overloaded` if the tenant has too many subjects.
pub async fn check_rate_limit(
    app: &App,
    caller: &Caller,
    check: &RateLimitCheck,
) -> Result<RateDecision, Error> {
    let event = check.event()?;
    // Each limit has its own counter, and no text of a caller is a key.
    let name = serde_json::to_vec(&(&check.subject, &check.action, event.limit, event.window))
        .map_err(Error::internal)?;
    app.rates.check_subject(caller.tenant_id(), Digest::compute(&name), &event).await
}

impl RateLimitCheck {
    fn event(&self) -> Result<SubjectEvent, Violations> {
        let mut violations = Violations::new();
        for (field, value, max) in [
            ("subject", &self.subject, SUBJECT_CHARACTERS_MAX),
            ("action", &self.action, ACTION_CHARACTERS_MAX),
        ] {
            if let Err(error) = text::check_line(value, max) {
                violations.add(field, error.to_string());
            }
        }
        let limit = count_within(self.limit, LIMIT_MAX);
        if limit.is_none() {
            violations.add("limit", format!("must be from 1 to {LIMIT_MAX}, is {}", self.limit));
        }
        let cost = self.cost.unwrap_or(1);
        let tokens = count_within(cost, self.limit);
        if limit.is_some() && tokens.is_none() {
            violations.add("cost", format!("must be from 1 to the limit ({}), is {cost}", self.limit));
        }
        let window = self.window.filter(|window| (WINDOW_MIN..=WINDOW_MAX).contains(window));
        if window.is_none() {
            let actual = self.window.map_or_else(
                || "missing or negative".to_owned(),
                |window| format!("{} seconds", window.as_secs_f64()),
            );
            let description = format!("must be from 1 to {} seconds, is {actual}", WINDOW_MAX.as_secs());
            violations.add("window", description);
        }
        match (limit, tokens, window) {
            (Some(limit), Some(cost), Some(window)) if violations.is_empty() => {
                Ok(SubjectEvent { limit, window, cost, is_peek: self.is_peek })
            }
            _ => Err(violations),
        }
    }
}

fn count_within(value: i64, max: i64) -> Option<u32> {
    u32::try_from(value).ok().filter(|_| (1..=max).contains(&value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check() -> RateLimitCheck {
        RateLimitCheck {
            subject: "user-7".to_owned(),
            action: "send_mail".to_owned(),
            limit: 10,
            window: Some(Duration::from_secs(60)),
            cost: None,
            is_peek: false,
        }
    }

    fn fields(check: &RateLimitCheck) -> Vec<String> {
        check.event().unwrap_err().iter().map(|violation| violation.field.clone()).collect()
    }

    #[test]
    fn limits_outside_their_range_are_refused() {
        assert_eq!(check().event().unwrap().cost, 1);
        assert_eq!(fields(&RateLimitCheck { limit: 0, ..check() }), ["limit"]);
        assert_eq!(fields(&RateLimitCheck { limit: LIMIT_MAX + 1, ..check() }), ["limit"]);
        assert_eq!(fields(&RateLimitCheck { cost: Some(11), ..check() }), ["cost"]);
        assert_eq!(fields(&RateLimitCheck { window: None, ..check() }), ["window"]);
        assert_eq!(fields(&RateLimitCheck { window: Some(WINDOW_MAX * 2), ..check() }), ["window"]);
        let empty = RateLimitCheck { subject: String::new(), action: "x".repeat(64), ..check() };
        assert_eq!(fields(&empty), ["subject", "action"]);
    }
}
