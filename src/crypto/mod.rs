//! Encryption of small values and signatures of webhooks.

pub mod sealer;
pub mod webhook_secret;
