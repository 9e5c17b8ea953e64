//! Passwords of shares, hashed with Argon2id.
//!
//! The parameters are the minimum that OWASP recommends: 19 MiB of memory, two passes, one lane. They are part of the
//! stored hash, so a later release can raise them. Hashing takes tens of milliseconds of one core. Call it outside of
//! the async runtime, and limit the number of concurrent calls.

use argon2::{
    Argon2, Params,
    password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};
use aws_lc_rs::rand;
use secrecy::{ExposeSecret as _, SecretString};

use crate::domain::digest::Digest;

/// The memory of one call, in bytes.
pub const MEMORY_BYTES: usize = Params::DEFAULT_M_COST as usize * 1024;
const SALT_BYTES: usize = 16;

/// The password could not be hashed, or the stored hash is damaged.
#[derive(Debug, thiserror::Error)]
#[error("password could not be hashed, or its stored hash is damaged")]
pub struct SharePasswordError;

/// Returns the hash of a password in the PHC string format, with a random salt.
///
/// # Errors
/// Returns an error if no random bytes are available.
pub fn hash_password(password: &SecretString) -> Result<String, SharePasswordError> {
    let mut salt = [0; SALT_BYTES];
    rand::fill(&mut salt).map_err(|_| SharePasswordError)?;
    hash_with_salt(password, &salt).map(|hash| hash.to_string())
}

/// Returns whether a password is the one of a stored hash. Compares in constant time.
///
/// # Errors
/// Returns an error if the stored hash is damaged.
pub fn verify_password(password: &SecretString, stored: &str) -> Result<bool, SharePasswordError> {
    let stored = PasswordHash::new(stored).map_err(|_| SharePasswordError)?;
    Ok(Argon2::default().verify_password(password.expose_secret().as_bytes(), &stored).is_ok())
}

/// Returns a value by which two requests with the same id are compared. A fast digest would allow guessing the password
/// from the stored value, so it is as expensive as the hash.
///
/// # Errors
/// Returns an error if the password cannot be hashed.
pub fn fingerprint_password(
    password: &SecretString,
    request_id: &[u8; 16],
) -> Result<Digest, SharePasswordError> {
    let hash = hash_with_salt(password, request_id)?;
    Ok(Digest::compute(hash.to_string().as_bytes()))
}

fn hash_with_salt(password: &SecretString, salt: &[u8]) -> Result<PasswordHash, SharePasswordError> {
    Argon2::default()
        .hash_password_with_salt(password.expose_secret().as_bytes(), salt)
        .map_err(|_| SharePasswordError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn password_matches_only_its_own_hash() {
        let password = SecretString::from("correct horse");
        let stored = hash_password(&password).unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert_ne!(stored, hash_password(&password).unwrap(), "the salt is random");
        assert!(verify_password(&password, &stored).unwrap());
        assert!(!verify_password(&SecretString::from("Correct horse"), &stored).unwrap());
        assert!(verify_password(&password, "plain").is_err());
    }

    #[test]
    fn fingerprint_depends_on_password_and_request() {
        let (one, other) = (SecretString::from("correct horse"), SecretString::from("battery staple"));
        let fingerprint = |password, id: u8| fingerprint_password(password, &[id; 16]).unwrap();
        assert_eq!(fingerprint(&one, 1), fingerprint(&one, 1));
        assert_ne!(fingerprint(&one, 1), fingerprint(&other, 1));
        assert_ne!(fingerprint(&one, 1), fingerprint(&one, 2));
    }
}
