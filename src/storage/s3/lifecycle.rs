//! The lifecycle rule with which the store aborts incomplete multipart uploads. It is a safeguard in addition
//! to the sweeping of Strongroom.

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{Method, StatusCode};

use super::{
    super::{InitOutcome, Payload},
    client::{Client, Request},
    digest,
    errors::Failure,
};

/// Identifies our rule among other rules.
const RULE_ID: &str = "strongroom-abort-incomplete-uploads";
const HEAD: &str = "<LifecycleConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">";
const TAIL: &str = "</LifecycleConfiguration>";

pub(super) async fn ensure_abort_rule(
    client: &Client,
    bucket: &str,
    days: u32,
) -> Result<InitOutcome, Failure> {
    let present = match client.send(Request::new(Method::GET, bucket, "").query("lifecycle", "")).await {
        Ok(response) => String::from_utf8_lossy(&response.body).into_owned(),
        Err(failure) if failure.code() == "NoSuchLifecycleConfiguration" => String::new(),
        Err(failure) => return to_unsupported(failure),
    };
    let Some(wanted) = merge_abort_rule(&present, days) else { return Ok(InitOutcome::AlreadyExists) };
    let body = Payload::from(Bytes::from(wanted));
    let checksum = BASE64_STANDARD.encode(digest::sha256(&body).await);
    let request = Request::new(Method::PUT, bucket, "").query("lifecycle", "");
    match client.send(request.header("x-amz-checksum-sha256", &checksum).body(body)).await {
        Ok(_) => Ok(InitOutcome::Done),
        Err(failure) => to_unsupported(failure),
    }
}

/// The rule is optional, so it is not an error if the store does not support it or denies access.
fn to_unsupported(failure: Failure) -> Result<InitOutcome, Failure> {
    match failure.status() {
        Some(
            StatusCode::NOT_IMPLEMENTED
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::FORBIDDEN
            | StatusCode::BAD_REQUEST,
        ) => Ok(InitOutcome::Unsupported(failure.to_string())),
        _ => Err(failure),
    }
}

/// Returns the existing rules with our rule added or replaced, or `None` if our rule is up to date. Rules are
/// not nested, so they can be split as text, and other rules stay unchanged.
fn merge_abort_rule(present: &str, days: u32) -> Option<String> {
    let ours = format!(
        "<Rule><ID>{RULE_ID}</ID><Status>Enabled</Status><Filter><Prefix></Prefix></Filter>\
         <AbortIncompleteMultipartUpload><DaysAfterInitiation>{days}</DaysAfterInitiation>\
         </AbortIncompleteMultipartUpload></Rule>"
    );
    let mut rules = String::new();
    for rule in present.split("<Rule>").skip(1) {
        let rule = rule.split("</Rule>").next().unwrap_or_default();
        if !rule.contains(&format!("<ID>{RULE_ID}</ID>")) {
            rules.push_str(&format!("<Rule>{rule}</Rule>"));
        } else if rule.contains(&format!("<DaysAfterInitiation>{days}</DaysAfterInitiation>"))
            && rule.contains("<Status>Enabled</Status>")
        {
            return None;
        }
    }
    Some(format!("{HEAD}{rules}{ours}{TAIL}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_or_updates_one_rule_and_keeps_other_rules() {
        let others = "<Rule><ID>archive</ID><Status>Enabled</Status></Rule>";
        let first = merge_abort_rule(&format!("{HEAD}{others}{TAIL}"), 7).unwrap();
        assert!(first.contains(others) && first.contains("<DaysAfterInitiation>7<"), "{first}");
        assert_eq!(merge_abort_rule(&first, 7), None, "the rule is up to date");
        let changed = merge_abort_rule(&first, 9).unwrap();
        assert!(changed.contains(others) && changed.contains("<DaysAfterInitiation>9<"), "{changed}");
        assert_eq!(changed.matches(RULE_ID).count(), 1);
    }
}
