//! Scopes: permissions that a token gives in addition to the role of its bearer.

/// A permission of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
pub enum Scope {
    /// Adds and deducts credits of all users of the tenant.
    #[serde(rename = "credits:write")]
    CreditsWrite,
}

impl Scope {
    /// The scopes that a configuration can name.
    pub const ALL: [Self; 1] = [Self::CreditsWrite];

    /// Returns the name of the scope in tokens and in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CreditsWrite => "credits:write",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_have_same_name_in_tokens_and_configuration() {
        for scope in Scope::ALL {
            let configured: Scope = serde_json::from_value(scope.as_str().into()).unwrap();
            assert_eq!(configured, scope);
        }
    }
}
