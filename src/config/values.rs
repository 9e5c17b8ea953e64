//! Deserialization of optional values. TOML has no null, so `""` means "not set".

use secrecy::SecretString;
use serde::{Deserialize, Deserializer, de::Error};
use url::Url;

/// Deserializes `""` as `None` and any other string as a `T`.
pub(super) fn empty_as_none<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
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

/// Deserializes `""` as `None`. Does not use other deserializers, so that no error can quote the secret.
pub(super) fn empty_secret_as_none<'de, D>(deserializer: D) -> Result<Option<SecretString>, D::Error>
where
    D: Deserializer<'de>,
{
    let text = String::deserialize(deserializer)?;
    Ok((!text.is_empty()).then(|| text.into()))
}

/// Deserializes `""` as `None` and any other string as a URL.
pub(super) fn empty_url_as_none<'de, D>(deserializer: D) -> Result<Option<Url>, D::Error>
where
    D: Deserializer<'de>,
{
    let text = String::deserialize(deserializer)?;
    if text.is_empty() { Ok(None) } else { Url::parse(&text).map(Some).map_err(D::Error::custom) }
}
