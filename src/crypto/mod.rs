//! Keys and what they seal.

pub mod sealer;
pub mod webhook_secret;
