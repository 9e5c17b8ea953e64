//! Keys and what they seal.

pub mod sealer;
