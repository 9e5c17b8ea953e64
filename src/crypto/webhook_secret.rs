//! Secrets of webhooks, and what they sign, as Standard Webhooks has it: HMAC-SHA256 over id, time and body.

use aws_lc_rs::{hmac, rand};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret, SecretString};

/// What every secret begins with.
const PREFIX: &str = "whsec_";
const SECRET_BYTES: usize = 32;

/// A secret that signs.
#[derive(Debug, Clone)]
pub struct WebhookSecret(SecretString);

/// There is no randomness, or the text is no secret.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the webhook's secret cannot be made or read")]
pub struct NoSecret;

impl WebhookSecret {
    /// A new one, of 256 bits.
    pub fn generate() -> Result<Self, NoSecret> {
        let mut bytes = [0; SECRET_BYTES];
        rand::fill(&mut bytes).map_err(|_| NoSecret)?;
        Ok(Self(format!("{PREFIX}{}", STANDARD.encode(bytes)).into()))
    }

    /// One that was made here before.
    pub fn from_text(text: String) -> Self {
        Self(text.into())
    }

    /// As its owner is shown it, once.
    pub fn text(&self) -> &str {
        self.0.expose_secret()
    }

    /// The signature of a message: `v1,` and base64.
    pub fn sign(&self, id: &str, timestamp_seconds: i64, body: &[u8]) -> Result<String, NoSecret> {
        let encoded = self.text().strip_prefix(PREFIX).ok_or(NoSecret)?;
        let key = STANDARD.decode(encoded).map_err(|_| NoSecret)?;
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &key));
        context.update(format!("{id}.{timestamp_seconds}.").as_bytes());
        context.update(body);
        Ok(format!("v1,{}", STANDARD.encode(context.sign())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's own libraries.
    #[test]
    fn the_signature_is_that_of_standard_webhooks() {
        let secret = WebhookSecret::from_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned());
        let signature =
            secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature.unwrap(), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn no_two_secrets_are_alike_and_none_is_printed() {
        let (one, other) = (WebhookSecret::generate().unwrap(), WebhookSecret::generate().unwrap());
        assert_ne!(one.text(), other.text());
        assert!(!format!("{one:?}").contains(one.text()));
    }
}
