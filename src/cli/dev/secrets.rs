//! The secrets of one `dev` installation, made once and kept in its data directory.

use std::{fs, path::Path};

use aws_lc_rs::rand;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::{Failure, write_private};

const FILE: &str = "dev-secrets.json";

/// What must stay the same between two starts, so that tokens and pages go on.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Secrets {
    jwt_secret: String,
    page_token_key: String,
}

impl Secrets {
    /// Reads the secrets, or makes them at the first start.
    pub(super) fn load_or_create(data_dir: &Path) -> Result<Self, Failure> {
        let path = data_dir.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                format!("{} is damaged ({error}); remove it to start afresh", path.display()).into()
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let secrets = Self { jwt_secret: random()?, page_token_key: random()? };
                write_private(data_dir, FILE, &serde_json::to_vec(&secrets)?)?;
                Ok(secrets)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Signs the tokens of this installation.
    pub(super) fn jwt_secret(&self) -> SecretString {
        SecretString::from(self.jwt_secret.clone())
    }

    /// Seals its page tokens; base64 of 32 bytes.
    pub(super) fn page_token_key(&self) -> String {
        self.page_token_key.clone()
    }
}

fn random() -> Result<String, Failure> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).map_err(|_| "the system's random generator failed")?;
    Ok(STANDARD.encode(bytes))
}
