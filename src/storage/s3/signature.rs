//! Signs URLs with Signature Version 4 in the query (AWS, "Authenticating Requests: Using Query Parameters").
//!
//! The signer of `object_store` rejects `content-length`, which must be signed: otherwise the holder of a URL
//! could store more bytes than it declared.

use std::{fmt::Write as _, time::Duration};

use aws_lc_rs::{digest, hmac};
use http::{HeaderMap, HeaderValue, Method, header::HOST};
use object_store::aws::AwsCredential;
use url::{Position, Url};

use crate::domain::{clock::Timestamp, percent::encode_path};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// What a URL allows.
pub(super) struct SignedRequest<'a> {
    pub(super) method: &'a Method,
    /// The URL of the object, with an encoded path and without a query.
    pub(super) url: Url,
    /// The parameters of the query, not encoded.
    pub(super) query: Vec<(&'a str, String)>,
    /// The headers that the request must have.
    pub(super) headers: HeaderMap,
    pub(super) expires_in: Duration,
}

impl SignedRequest<'_> {
    /// Returns the URL with its signature.
    pub(super) fn sign(mut self, credential: &AwsCredential, region: &str, now: Timestamp) -> Url {
        let time = now.format("%Y%m%dT%H%M%SZ").to_string();
        let date = &time[..8];
        let scope = format!("{date}/{region}/s3/aws4_request");
        let host = self.url[Position::BeforeHost..Position::AfterPort].to_owned();
        if let Ok(host) = HeaderValue::from_str(&host) {
            self.headers.insert(HOST, host);
        }
        let (names, headers) = canonical_headers(&self.headers);
        self.query.extend([
            ("X-Amz-Algorithm", ALGORITHM.to_owned()),
            ("X-Amz-Credential", format!("{}/{scope}", credential.key_id)),
            ("X-Amz-Date", time.clone()),
            ("X-Amz-Expires", self.expires_in.as_secs().to_string()),
            ("X-Amz-SignedHeaders", names.clone()),
        ]);
        self.query.extend(credential.token.iter().map(|token| ("X-Amz-Security-Token", token.clone())));
        let query = canonical_query(&self.query);
        let request =
            format!("{}\n{}\n{query}\n{headers}\n{names}\nUNSIGNED-PAYLOAD", self.method, self.url.path());
        let request = hex(digest::digest(&digest::SHA256, request.as_bytes()).as_ref());
        let to_sign = format!("{ALGORITHM}\n{time}\n{scope}\n{request}");
        let mut key = format!("AWS4{}", credential.secret_key).into_bytes();
        for part in [date, region, "s3", "aws4_request"] {
            key = hmac_sha256(&key, part);
        }
        self.url.set_query(Some(&format!("{query}&X-Amz-Signature={}", hex(&hmac_sha256(&key, &to_sign)))));
        self.url
    }
}

/// Returns the names of the headers, and the headers one per line, both sorted by name.
fn canonical_headers(headers: &HeaderMap) -> (String, String) {
    let mut sorted: Vec<(&str, &str)> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap_or_default().trim()))
        .collect();
    sorted.sort_unstable();
    let names: Vec<&str> = sorted.iter().map(|(name, _)| *name).collect();
    let lines = sorted.iter().fold(String::new(), |lines, (name, value)| format!("{lines}{name}:{value}\n"));
    (names.join(";"), lines)
}

/// Returns the encoded parameters, sorted by name.
fn canonical_query(query: &[(&str, String)]) -> String {
    let encode = |text: &str| encode_path(text).replace('/', "%2F");
    let mut pairs: Vec<String> =
        query.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
    pairs.sort_unstable();
    pairs.join("&")
}

fn hmac_sha256(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone as _;

    use super::*;

    /// The example of the AWS documentation ("Authenticating Requests: Using Query Parameters").
    #[test]
    fn documented_example_has_its_signature() {
        let credential = AwsCredential {
            key_id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
            token: None,
        };
        let request = SignedRequest {
            method: &Method::GET,
            url: "https://examplebucket.s3.amazonaws.com/test.txt".parse().unwrap(),
            query: Vec::new(),
            headers: HeaderMap::new(),
            expires_in: Duration::from_secs(86_400),
        };
        let now = chrono::Utc.with_ymd_and_hms(2013, 5, 24, 0, 0, 0).unwrap();
        let signed = request.sign(&credential, "us-east-1", now);
        let signature = "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404";
        assert!(signed.as_str().ends_with(&format!("&X-Amz-Signature={signature}")), "{signed}");
    }
}
