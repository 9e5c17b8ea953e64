//! Objects in a bucket of any store that speaks S3.

mod options;

pub use self::options::{Encryption, PayloadSigning, S3Credentials, S3Options};
