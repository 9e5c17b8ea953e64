//! Encryption of small values, signatures of webhooks, and tokens and passwords of shares.

pub mod sealer;
pub mod share_password;
pub mod share_token;
pub mod webhook_secret;
