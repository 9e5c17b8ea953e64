//! The name of the owner marker, and how it is written. `app/owner` gives it a meaning.

/// How a marker is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkerWrite {
    /// The marker must not exist.
    Create,
    /// An existing marker is replaced.
    Replace,
}

/// The last segment of the name. It is not an id, so the name is no object key.
const NAME: &str = "strongroom-owner.json";

/// Returns the name of the marker in the store.
pub(super) fn marker_name(prefix: &str) -> String {
    if prefix.is_empty() { NAME.to_owned() } else { format!("{prefix}/{NAME}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::object_key::ObjectKey;

    #[test]
    fn marker_is_below_the_prefix_and_no_object_key() {
        assert_eq!(marker_name(""), "strongroom-owner.json");
        assert_eq!(marker_name("live/eu"), "live/eu/strongroom-owner.json");
        for prefix in ["", "live/eu"] {
            assert!(ObjectKey::parse(&marker_name(prefix)).is_err(), "{prefix}");
        }
    }
}
