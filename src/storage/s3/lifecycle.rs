//! The rule by which the store itself gives up multipart uploads that nobody finished. A second net: our own
//! sweeping is the first.

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{Method, StatusCode};

use super::{
    super::{InitOutcome, Payload},
    client::{Call, Client},
    digest,
    errors::Failure,
};

/// By this name we know our rule among those of others.
const RULE_ID: &str = "strongroom-abort-incomplete-uploads";
const HEAD: &str = "<LifecycleConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">";
const TAIL: &str = "</LifecycleConfiguration>";

pub(super) async fn ensure(client: &Client, bucket: &str, days: u32) -> Result<InitOutcome, Failure> {
    let present = match client.send(Call::new(Method::GET, bucket, "").query("lifecycle", "")).await {
        Ok(answer) => String::from_utf8_lossy(&answer.body).into_owned(),
        Err(failure) if failure.code() == "NoSuchLifecycleConfiguration" => String::new(),
        Err(failure) => return unsupported(failure),
    };
    let Some(wanted) = with_our_rule(&present, days) else { return Ok(InitOutcome::AlreadyThere) };
    let body = Payload::from(Bytes::from(wanted));
    let checksum = BASE64_STANDARD.encode(digest::sha256(&body).await);
    let call = Call::new(Method::PUT, bucket, "").query("lifecycle", "");
    match client.send(call.header("x-amz-checksum-sha256", &checksum).body(body)).await {
        Ok(_) => Ok(InitOutcome::Done),
        Err(failure) => unsupported(failure),
    }
}

/// Nothing depends on the rule, so a store that does not know it or does not let us is good enough.
fn unsupported(failure: Failure) -> Result<InitOutcome, Failure> {
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

/// The rules of others and ours; nothing when ours is there already. Rules are not nested, so they can be told
/// apart as text, and those of others stay exactly as they are.
fn with_our_rule(present: &str, days: u32) -> Option<String> {
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
    fn our_rule_is_added_once_changed_in_place_and_leaves_those_of_others() {
        let others = "<Rule><ID>archive</ID><Status>Enabled</Status></Rule>";
        let first = with_our_rule(&format!("{HEAD}{others}{TAIL}"), 7).unwrap();
        assert!(first.contains(others) && first.contains("<DaysAfterInitiation>7<"), "{first}");
        assert_eq!(with_our_rule(&first, 7), None, "it is there");
        let changed = with_our_rule(&first, 9).unwrap();
        assert!(changed.contains(others) && changed.contains("<DaysAfterInitiation>9<"), "{changed}");
        assert_eq!(changed.matches(RULE_ID).count(), 1);
    }
}
