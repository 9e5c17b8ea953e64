//! Secrets of webhooks and signatures according to Standard Webhooks: HMAC-SHA256 over id, time and body.

use aws_lc_rs::{hmac, rand};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret, SecretString};

/// The prefix of every secret.
const PREFIX: &str = "whsec_";
const SECRET_BYTES: usize = 32;

/// A signing secret of a webhook.
#[derive(Debug, Clone)]
pub struct WebhookSecret(SecretString);

/// No random bytes are available, or the text is not a secret.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("webhook secret could not be generated or is malformed")]
pub struct WebhookSecretError;

impl WebhookSecret {
    /// Generates a new secret of 256 bits.
    ///
    /// # Errors
    /// Returns an error if no random bytes are available.
    pub fn generate() -> Result<Self, WebhookSecretError> {
        let mut bytes = [0; SECRET_BYTES];
        rand::fill(&mut bytes).map_err(|_| WebhookSecretError)?;
        Ok(Self(format!("{PREFIX}{}", STANDARD.encode(bytes)).into()))
    }

    /// Wraps a secret that was generated before. It is checked when it is used.
    pub fn from_text(text: String) -> Self {
        Self(text.into())
    }

    /// Returns the secret as shown to its owner.
    pub fn text(&self) -> &str {
        self.0.expose_secret()
    }

    /// Returns the signature of a message: `v1,` and base64.
    ///
    /// # Errors
    /// Returns an error if the secret is malformed.
    pub fn sign(&self, id: &str, timestamp_seconds: i64, body: &[u8]) -> Result<String, WebhookSecretError> {
        let encoded = self.text().strip_prefix(PREFIX).ok_or(WebhookSecretError)?;
        let key = STANDARD.decode(encoded).map_err(|_| WebhookSecretError)?;
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &key));
        context.update(format!("{id}.{timestamp_seconds}.").as_bytes());
        context.update(body);
        Ok(format!("v1,{}", STANDARD.encode(context.sign())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's reference libraries.
    #[test]
    fn signature_matches_standard_webhooks_example() {
        let secret = WebhookSecret::from_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned());
        let signature =
            secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature.unwrap(), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn secrets_are_unique_and_never_printed() {
        let (one, other) = (WebhookSecret::generate().unwrap(), WebhookSecret::generate().unwrap());
        assert_ne!(one.text(), other.text());
        assert!(!format!("{one:?}").contains(one.text()));
    }
}
