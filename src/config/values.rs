//! How text becomes values: TOML has no null, so `""` stands for "not set".

use secrecy::SecretString;
use serde::{Deserialize, Deserializer, de::Error};
use url::Url;

/// Reads `""` as none, and anything else as a `T`.
pub(super) fn none_if_empty<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: serde::de::DeserializeOwned,
{
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    let text = serde::de::value::StringDeserializer::<serde::de::value::Error>::new(text);
    T::deserialize(text).map(Some).map_err(D::Error::custom)
}

/// Reads `""` as none. On its own path, so that no error of a deserialiser can quote the text.
pub(super) fn no_secret_if_empty<'de, D>(deserializer: D) -> Result<Option<SecretString>, D::Error>
where
    D: Deserializer<'de>,
{
    let text = String::deserialize(deserializer)?;
    Ok((!text.is_empty()).then(|| text.into()))
}

/// Reads `""` as none, and anything else as a URL.
pub(super) fn no_url_if_empty<'de, D>(deserializer: D) -> Result<Option<Url>, D::Error>
where
    D: Deserializer<'de>,
{
    let text = String::deserialize(deserializer)?;
    if text.is_empty() { Ok(None) } else { Url::parse(&text).map(Some).map_err(D::Error::custom) }
}
