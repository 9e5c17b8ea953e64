//! Conversion of verified claims to an identity. Claims that cannot be read are rejected.

use serde_json::{Map, Value};

use crate::{
    app::{
        CredentialsError, InvalidCredentials,
        tenants::resolve::{Identity, IdentityKind},
    },
    config::{AuthConfig, auth::RoleName},
    domain::{
        caller::{ActorKind, Role},
        text::{self, EXTERNAL_ID_CHARACTERS_MAX},
    },
};

/// The configured rules for reading claims.
pub(super) struct ClaimRules(AuthConfig);

impl ClaimRules {
    pub(super) fn new(config: AuthConfig) -> Self {
        Self(config)
    }

    /// Reads the identity of the bearer from the verified claims of an issuer.
    pub(super) fn read_identity(
        &self,
        issuer: &str,
        claims: &Map<String, Value>,
    ) -> Result<Identity, CredentialsError> {
        let paths = &self.0.claims;
        let subject = read_id(claims, &paths.user)?
            .ok_or_else(|| InvalidCredentials::ClaimMissing(paths.user.clone()))?;
        let kind = self.read_identity_kind(claims)?;
        Ok(Identity { issuer: issuer.to_owned(), subject, kind })
    }

    fn read_identity_kind(&self, claims: &Map<String, Value>) -> Result<IdentityKind, CredentialsError> {
        let paths = &self.0.claims;
        let claimed = self.read_role(claims)?;
        let organization = read_id(claims, &paths.organization)?;
        let role = match (claimed, &organization) {
            (Some(RoleName::Operator), _) => return Ok(IdentityKind::Operator),
            // A person without an organization is the admin of their own tenant, whatever role the token
            // claims.
            (_, None) => Role::Admin,
            (Some(name), Some(_)) => role_in_tenant(name)?,
            (None, Some(_)) => match self.0.role_default {
                Some(name) => role_in_tenant(name)?,
                None => return Err(InvalidCredentials::ClaimMissing(paths.role.clone()).into()),
            },
        };
        let is_service = read_text(claims, &paths.kind)?.is_some_and(|kind| kind == self.0.service_kind);
        let kind = if is_service { ActorKind::Service } else { ActorKind::User };
        Ok(IdentityKind::Member { kind, organization, role, groups: read_groups(claims, &paths.groups)? })
    }

    /// Reads the role that the token claims. An unmapped role is rejected, even if it is not needed, because
    /// any replacement would be a guess.
    fn read_role(&self, claims: &Map<String, Value>) -> Result<Option<RoleName>, CredentialsError> {
        let Some(claimed) = read_text(claims, &self.0.claims.role)? else { return Ok(None) };
        match self.0.roles.get(claimed) {
            Some(name) => Ok(Some(*name)),
            None => {
                let shortened: String = claimed.chars().take(64).collect();
                Err(InvalidCredentials::RoleUnknown(shortened).into())
            }
        }
    }
}

/// Returns the role in a tenant. Operators have none, because they belong to no tenant.
fn role_in_tenant(name: RoleName) -> Result<Role, CredentialsError> {
    match name {
        RoleName::Admin => Ok(Role::Admin),
        RoleName::Manager => Ok(Role::Manager),
        RoleName::Member => Ok(Role::Member),
        RoleName::Operator => Err(InvalidCredentials::OperatorInOrganization.into()),
    }
}

/// Returns the value at a path. A claim whose name contains dots (`https://example.org/role`) takes
/// precedence over a nested one.
fn find_claim<'a>(claims: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let nested = || {
        let mut names = path.split('.');
        let first = claims.get(names.next()?)?;
        names.try_fold(first, |value, name| value.as_object()?.get(name))
    };
    claims.get(path).or_else(nested).filter(|value| !value.is_null())
}

fn read_text<'a>(claims: &'a Map<String, Value>, path: &str) -> Result<Option<&'a str>, CredentialsError> {
    match find_claim(claims, path) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(InvalidCredentials::ClaimNotString(path.to_owned()).into()),
    }
}

/// Reads an external id: 1 to 255 characters without control characters.
fn read_id(claims: &Map<String, Value>, path: &str) -> Result<Option<String>, CredentialsError> {
    read_text(claims, path)?.map(|text| check_id(text, path)).transpose()
}

fn check_id(text: &str, path: &str) -> Result<String, CredentialsError> {
    text::check_line(text, EXTERNAL_ID_CHARACTERS_MAX)
        .map_err(|problem| InvalidCredentials::ClaimTextInvalid { claim: path.to_owned(), problem }.into())
}

/// The maximum number of groups of a caller. A list reads an index for each of them.
const GROUPS_MAX: usize = 128;

/// Reads the groups: a list of ids or a single id.
fn read_groups(claims: &Map<String, Value>, path: &str) -> Result<Vec<String>, CredentialsError> {
    let read_group = |value: &Value| match value {
        Value::String(text) => check_id(text, path),
        _ => Err(InvalidCredentials::ClaimNotIds(path.to_owned()).into()),
    };
    match find_claim(claims, path) {
        None => Ok(Vec::new()),
        Some(Value::Array(values)) if values.len() > GROUPS_MAX => {
            let claim = path.to_owned();
            Err(InvalidCredentials::ClaimTooLong { claim, id_count: values.len(), id_count_max: GROUPS_MAX }
                .into())
        }
        Some(Value::Array(values)) => values.iter().map(read_group).collect(),
        Some(value) => read_group(value).map(|group| vec![group]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Config;

    fn rules(change: impl FnOnce(&mut AuthConfig)) -> ClaimRules {
        let mut config = Config::defaults().unwrap().auth;
        change(&mut config);
        ClaimRules::new(config)
    }

    fn read_identity(claims: Value) -> Result<Identity, CredentialsError> {
        rules(|_| {}).read_identity("https://id", claims.as_object().unwrap())
    }

    fn read_member(claims: Value) -> (ActorKind, Option<String>, Role, Vec<String>) {
        match read_identity(claims).unwrap().kind {
            IdentityKind::Member { kind, organization, role, groups } => (kind, organization, role, groups),
            IdentityKind::Operator => panic!("operator"),
        }
    }

    fn error_message(result: Result<Identity, CredentialsError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn configured_role_names_are_mapped() {
        for (claimed, role) in [("owner", Role::Admin), ("teacher", Role::Manager), ("student", Role::Member)]
        {
            let claims = json!({"sub": "alice", "org_id": "acme", "role": claimed});
            assert_eq!(read_member(claims), (ActorKind::User, Some("acme".into()), role, vec![]));
        }
    }

    #[test]
    fn unknown_role_is_rejected_by_name() {
        let message =
            error_message(read_identity(json!({"sub": "alice", "org_id": "acme", "role": "janitor"})));
        assert_eq!(message, r#"role "janitor" is not configured"#);
        assert!(read_identity(json!({"sub": "alice", "role": "janitor"})).is_err());
        assert!(read_identity(json!({"sub": "alice", "org_id": "acme", "role": ["admin"]})).is_err());
    }

    #[test]
    fn missing_role_is_rejected_or_gets_the_default() {
        let claims = json!({"sub": "alice", "org_id": "acme"});
        assert_eq!(error_message(read_identity(claims.clone())), "claim `role` is missing");
        let lenient = rules(|config| config.role_default = Some(RoleName::Member));
        let identity = lenient.read_identity("https://id", claims.as_object().unwrap()).unwrap();
        assert!(matches!(identity.kind, IdentityKind::Member { role: Role::Member, .. }));
    }

    #[test]
    fn person_without_organization_is_admin_of_own_tenant() {
        let expected = (ActorKind::User, None, Role::Admin, vec![]);
        assert_eq!(read_member(json!({"sub": "alice"})), expected);
        assert_eq!(read_member(json!({"sub": "alice", "org_id": null, "role": "member"})), expected);
    }

    #[test]
    fn operator_role_requires_configuration() {
        let claims = json!({"sub": "ops", "org_id": "acme", "role": "operator"});
        assert!(read_identity(claims.clone()).is_err());
        let mapped = rules(|config| {
            config.roles.insert("operator".into(), RoleName::Operator);
        });
        let identity = mapped.read_identity("https://id", claims.as_object().unwrap()).unwrap();
        assert!(matches!(identity.kind, IdentityKind::Operator));
    }

    #[test]
    fn backend_without_a_user_is_a_service() {
        let claims = json!({"sub": "billing", "org_id": "acme", "role": "member", "kind": "service"});
        assert_eq!(read_member(claims).0, ActorKind::Service);
    }

    #[test]
    fn groups_are_a_list_or_a_single_id() {
        let claims = |groups: Value| json!({"sub": "alice", "groups": groups});
        assert_eq!(read_member(claims(json!(["7a", "8b"]))).3, ["7a", "8b"]);
        assert_eq!(read_member(claims(json!("7a"))).3, ["7a"]);
        assert!(read_identity(claims(json!([7]))).is_err());
        assert!(read_identity(claims(json!(["a\nb"]))).is_err());
        assert!(read_identity(claims(json!(vec!["g"; 128]))).is_ok());
        assert!(read_identity(claims(json!(vec!["g"; 129]))).is_err());
    }

    #[test]
    fn claims_are_found_by_nested_path_and_by_dotted_name() {
        let nested = rules(|config| {
            config.claims.role = "realm_access.role".into();
            config.claims.organization = "https://example.org/org".into();
        });
        let claims = json!({
            "sub": "alice", "https://example.org/org": "acme", "realm_access": {"role": "manager"},
        });
        let identity = nested.read_identity("https://id", claims.as_object().unwrap()).unwrap();
        let IdentityKind::Member { organization, role, .. } = identity.kind else { panic!("operator") };
        assert_eq!((organization.as_deref(), role), (Some("acme"), Role::Manager));
    }

    #[test]
    fn ids_have_1_to_255_characters_and_no_control_characters() {
        assert!(read_identity(json!({"sub": "é".repeat(255)})).is_ok());
        for sub in [json!(""), json!("é".repeat(256)), json!("a\0b"), json!(7), Value::Null] {
            assert!(read_identity(json!({"sub": sub})).is_err(), "{sub}");
        }
        assert!(read_identity(json!({"sub": "alice", "org_id": "", "role": "member"})).is_err());
    }
}
