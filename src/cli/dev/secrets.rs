//! The secrets of a `dev` installation. They are generated at the first start and stored in the data
//! directory.

use std::{fs, path::Path};

use aws_lc_rs::rand;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::{Failure, write_private};

const FILE: &str = "dev-secrets.json";

/// The secrets that must survive a restart, so that tokens and page tokens stay valid.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Secrets {
    jwt_secret: String,
    page_token_key: String,
}

impl Secrets {
    /// Reads the secrets, or generates them at the first start.
    pub(super) fn load_or_create(data_dir: &Path) -> Result<Self, Failure> {
        let path = data_dir.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                format!("{} is damaged ({error}); delete it to generate new secrets", path.display()).into()
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let secrets = Self { jwt_secret: random_key()?, page_token_key: random_key()? };
                write_private(data_dir, FILE, &serde_json::to_vec(&secrets)?)?;
                Ok(secrets)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the key that signs the tokens.
    pub(super) fn jwt_secret(&self) -> SecretString {
        SecretString::from(self.jwt_secret.clone())
    }

    /// Returns the key that seals page tokens: 32 bytes in base64.
    pub(super) fn page_token_key(&self) -> String {
        self.page_token_key.clone()
    }
}

fn random_key() -> Result<String, Failure> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).map_err(|_| "the system's random number generator failed")?;
    Ok(STANDARD.encode(bytes))
}
