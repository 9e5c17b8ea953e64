//! `strongroom rate-limit`: checks an event against a limit that a backend service of the tenant defines.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{connection::ConnectionArgs, exit, failure::Failure, output::Output};
use crate::proto::v1::{CheckRateLimitRequest, CheckRateLimitResponse};

/// The examples as shown by `--help`, before the exit codes.
const EXAMPLES: &str = "Examples:
  strongroom rate-limit check alice --action send_mail --limit 100 --window 60s
  strongroom rate-limit check alice --action send_mail --limit 100 --window 60s --peek --json";

#[derive(Debug, Subcommand)]
pub(crate) enum RateLimitCommand {
    /// Count an event of a subject, if it is within a limit; for tenant admins and backend services.
    ///
    /// A subject, an action, a limit and a window together have one counter in each tenant. The limits of requests to
    /// this service are settings of the operator instead.
    #[command(after_help = format!("{EXAMPLES}\n\n{}", exit::HELP))]
    Check(CheckArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Who causes the event, such as the id of a user.
    pub subject: String,
    /// The kind of event, such as send_mail.
    #[arg(long, value_name = "ACTION")]
    pub action: String,
    /// The number of events that are allowed within the window; exits with 5 above it.
    #[arg(long, value_name = "N")]
    pub limit: i64,
    /// The time in which these events are allowed, in whole seconds, minutes or hours: 60s, 5m or 24h.
    #[arg(long, value_name = "TIME", value_parser = parse_seconds)]
    pub window: i64,
    /// The number of events to count at once. Default: 1.
    #[arg(long, value_name = "N")]
    pub cost: Option<i64>,
    /// Count nothing, and only show the level.
    #[arg(long)]
    pub peek: bool,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

impl RateLimitCommand {
    pub(super) fn is_json(&self) -> bool {
        let Self::Check(args) = self;
        args.json
    }

    pub(super) fn connection(&self) -> &ConnectionArgs {
        let Self::Check(args) = self;
        &args.connection
    }
}

pub(super) async fn run_rate_limit(command: RateLimitCommand, output: Output) -> Result<(), Failure> {
    let RateLimitCommand::Check(args) = command;
    let client = args.connection.connect().await?;
    let request = CheckRateLimitRequest {
        subject: args.subject,
        action: args.action,
        limit: args.limit,
        window: Some(prost_types::Duration { seconds: args.window, nanos: 0 }),
        cost: args.cost,
        peek: args.peek,
    };
    let response = client.check_rate_limit(request).await?;
    if output.json {
        output.json(&to_json(&response))?;
    } else {
        output.line(format_args!("allowed    {}", if response.allowed { "yes" } else { "no" }))?;
        output.line(format_args!("limit      {}", response.limit))?;
        output.line(format_args!("remaining  {}", response.remaining))?;
        output.line(format_args!("reset in   {}", format_delay(response.reset_delay.as_ref())))?;
        output.line(format_args!("retry in   {}", format_delay(response.retry_delay.as_ref())))?;
    }
    if response.allowed { Ok(()) } else { Err(Failure::EventNotAllowed { limit: response.limit }) }
}

/// Parses a number of seconds, minutes or hours. Returns seconds.
fn parse_seconds(text: &str) -> Result<i64, String> {
    let units = [("s", 1), ("m", 60), ("h", 3_600)];
    let split = units.iter().find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, *seconds)));
    let parsed = split.and_then(|(number, seconds): (&str, i64)| {
        number.parse::<u32>().ok().and_then(|number| i64::from(number).checked_mul(seconds))
    });
    parsed.ok_or_else(|| "use a whole number of seconds, minutes or hours, such as 60s, 5m or 24h".to_owned())
}

fn to_json(response: &CheckRateLimitResponse) -> Value {
    json!({
        "allowed": response.allowed,
        "limit": response.limit,
        "remaining": response.remaining,
        "reset_delay_seconds": response.reset_delay.as_ref().map(seconds),
        "retry_delay_seconds": response.retry_delay.as_ref().map(seconds),
    })
}

fn format_delay(delay: Option<&prost_types::Duration>) -> String {
    delay.map_or_else(|| "-".to_owned(), |delay| format!("{} s", seconds(delay)))
}

fn seconds(delay: &prost_types::Duration) -> f64 {
    std::time::Duration::try_from(*delay).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_is_a_number_with_a_unit() {
        for (text, seconds) in [("60s", 60), ("5m", 300), ("24h", 86_400), ("0s", 0)] {
            assert_eq!(parse_seconds(text), Ok(seconds), "{text}");
        }
        for text in ["", "s", "60", "-1s", "1.5m", "1 h", "60ms", "1d", "99999999999s"] {
            assert!(parse_seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn delays_are_seconds_with_a_fraction() {
        let response = CheckRateLimitResponse {
            limit: 5,
            reset_delay: Some(prost_types::Duration { seconds: 2, nanos: 500_000_000 }),
            ..CheckRateLimitResponse::default()
        };
        let expected = json!({
            "allowed": false,
            "limit": 5,
            "remaining": 0,
            "reset_delay_seconds": 2.5,
            "retry_delay_seconds": null,
        });
        assert_eq!(to_json(&response), expected);
        assert_eq!(format_delay(response.reset_delay.as_ref()), "2.5 s");
        assert_eq!(format_delay(None), "-");
    }
}
