//! From verified claims to an identity. What cannot be read is refused, never guessed.

use serde_json::{Map, Value};

use crate::{
    app::{
        CredentialsError,
        tenants::resolve::{Identity, IdentityKind},
    },
    config::{AuthConfig, auth::RoleName},
    domain::{
        caller::{ActorKind, Role},
        text::{self, EXTERNAL_ID_CHARACTERS_MAX},
    },
};

/// How claims are read, as configured.
pub(super) struct ClaimRules(AuthConfig);

impl ClaimRules {
    pub(super) fn new(config: AuthConfig) -> Self {
        Self(config)
    }

    /// Who the bearer is, by the claims of an issuer that vouched for them.
    pub(super) fn identity(
        &self,
        issuer: &str,
        claims: &Map<String, Value>,
    ) -> Result<Identity, CredentialsError> {
        let paths = &self.0.claims;
        let subject =
            id(claims, &paths.user)?.ok_or_else(|| invalid(format!("claim `{}` is missing", paths.user)))?;
        let kind = self.identity_kind(claims)?;
        Ok(Identity { issuer: issuer.to_owned(), subject, kind })
    }

    fn identity_kind(&self, claims: &Map<String, Value>) -> Result<IdentityKind, CredentialsError> {
        let paths = &self.0.claims;
        let claimed = self.role(claims)?;
        let organization = id(claims, &paths.organization)?;
        let role = match (claimed, &organization) {
            (Some(RoleName::Operator), _) => return Ok(IdentityKind::Operator),
            // A person alone is the admin of their own tenant, whatever they are elsewhere.
            (_, None) => Role::Admin,
            (Some(name), Some(_)) => role(name)?,
            (None, Some(_)) => match self.0.role_default {
                Some(name) => role(name)?,
                None => return Err(invalid(format!("claim `{}` is missing", paths.role))),
            },
        };
        let is_service = text_claim(claims, &paths.kind)?.is_some_and(|kind| kind == self.0.service_kind);
        let kind = if is_service { ActorKind::Service } else { ActorKind::User };
        Ok(IdentityKind::Member { kind, organization, role, groups: groups(claims, &paths.groups)? })
    }

    /// The role that the token claims; none where it claims none. A role that no line of the map names is
    /// refused also where it would not be looked at: lowering it to something harmless would be a guess.
    fn role(&self, claims: &Map<String, Value>) -> Result<Option<RoleName>, CredentialsError> {
        let Some(claimed) = text_claim(claims, &self.0.claims.role)? else { return Ok(None) };
        match self.0.roles.get(claimed) {
            Some(name) => Ok(Some(*name)),
            None => {
                let shown: String = claimed.chars().take(64).collect();
                Err(invalid(format!("role {shown:?} is not known here")))
            }
        }
    }
}

/// The role inside a tenant that a name of the map stands for. The operator has none: it is in no tenant.
fn role(name: RoleName) -> Result<Role, CredentialsError> {
    match name {
        RoleName::Admin => Ok(Role::Admin),
        RoleName::Manager => Ok(Role::Manager),
        RoleName::Member => Ok(Role::Member),
        RoleName::Operator => Err(invalid("the operator has no role in an organisation".to_owned())),
    }
}

/// The value at a path. A claim whose own name has dots (`https://example.org/role`) is found first.
fn lookup<'a>(claims: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let nested = || {
        let mut names = path.split('.');
        let first = claims.get(names.next()?)?;
        names.try_fold(first, |value, name| value.as_object()?.get(name))
    };
    claims.get(path).or_else(nested).filter(|value| !value.is_null())
}

fn text_claim<'a>(claims: &'a Map<String, Value>, path: &str) -> Result<Option<&'a str>, CredentialsError> {
    match lookup(claims, path) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(invalid(format!("claim `{path}` must be text"))),
    }
}

/// An id of the caller's world: opaque, 1 to 255 characters without control characters.
fn id(claims: &Map<String, Value>, path: &str) -> Result<Option<String>, CredentialsError> {
    text_claim(claims, path)?.map(|text| checked(text, path)).transpose()
}

fn checked(text: &str, path: &str) -> Result<String, CredentialsError> {
    text::check_line(text, EXTERNAL_ID_CHARACTERS_MAX)
        .map_err(|error| invalid(format!("claim `{path}` {error}")))
}

/// The most groups of one caller: a list walks one index for each of them.
const GROUPS_MAX: usize = 128;

/// The groups: a list of ids, or a single one.
fn groups(claims: &Map<String, Value>, path: &str) -> Result<Vec<String>, CredentialsError> {
    let one = |value: &Value| match value {
        Value::String(text) => checked(text, path),
        _ => Err(invalid(format!("claim `{path}` must be a list of ids"))),
    };
    match lookup(claims, path) {
        None => Ok(Vec::new()),
        Some(Value::Array(values)) if values.len() > GROUPS_MAX => Err(invalid(format!(
            "claim `{path}` has {} ids; at most {GROUPS_MAX} are looked at",
            values.len()
        ))),
        Some(Value::Array(values)) => values.iter().map(one).collect(),
        Some(value) => one(value).map(|group| vec![group]),
    }
}

fn invalid(why: String) -> CredentialsError {
    CredentialsError::Invalid(why)
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

    fn identity(claims: Value) -> Result<Identity, CredentialsError> {
        rules(|_| {}).identity("https://id", claims.as_object().unwrap())
    }

    fn member(claims: Value) -> (ActorKind, Option<String>, Role, Vec<String>) {
        match identity(claims).unwrap().kind {
            IdentityKind::Member { kind, organization, role, groups } => (kind, organization, role, groups),
            IdentityKind::Operator => panic!("an operator"),
        }
    }

    fn refusal(result: Result<Identity, CredentialsError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn roles_of_other_systems_become_ours() {
        for (claimed, role) in [("owner", Role::Admin), ("teacher", Role::Manager), ("student", Role::Member)]
        {
            let claims = json!({"sub": "alice", "org_id": "acme", "role": claimed});
            assert_eq!(member(claims), (ActorKind::User, Some("acme".into()), role, vec![]));
        }
    }

    #[test]
    fn an_unknown_role_is_refused_by_name_and_never_lowered() {
        let why = refusal(identity(json!({"sub": "alice", "org_id": "acme", "role": "janitor"})));
        assert_eq!(why, r#"role "janitor" is not known here"#);
        assert!(identity(json!({"sub": "alice", "role": "janitor"})).is_err());
        assert!(identity(json!({"sub": "alice", "org_id": "acme", "role": ["admin"]})).is_err());
    }

    #[test]
    fn a_missing_role_is_refused_or_the_configured_default() {
        let claims = json!({"sub": "alice", "org_id": "acme"});
        assert_eq!(refusal(identity(claims.clone())), "claim `role` is missing");
        let lenient = rules(|config| config.role_default = Some(RoleName::Member));
        let identity = lenient.identity("https://id", claims.as_object().unwrap()).unwrap();
        assert!(matches!(identity.kind, IdentityKind::Member { role: Role::Member, .. }));
    }

    #[test]
    fn a_person_alone_is_the_admin_of_their_own_tenant() {
        let expected = (ActorKind::User, None, Role::Admin, vec![]);
        assert_eq!(member(json!({"sub": "alice"})), expected);
        assert_eq!(member(json!({"sub": "alice", "org_id": null, "role": "member"})), expected);
    }

    #[test]
    fn the_operator_is_mapped_from_configuration_alone() {
        let claims = json!({"sub": "ops", "org_id": "acme", "role": "operator"});
        assert!(identity(claims.clone()).is_err());
        let mapped = rules(|config| {
            config.roles.insert("operator".into(), RoleName::Operator);
        });
        let identity = mapped.identity("https://id", claims.as_object().unwrap()).unwrap();
        assert!(matches!(identity.kind, IdentityKind::Operator));
    }

    #[test]
    fn a_backend_without_a_user_is_a_service() {
        let claims = json!({"sub": "billing", "org_id": "acme", "role": "member", "kind": "service"});
        assert_eq!(member(claims).0, ActorKind::Service);
    }

    #[test]
    fn groups_are_a_list_or_a_single_id() {
        let claims = |groups: Value| json!({"sub": "alice", "groups": groups});
        assert_eq!(member(claims(json!(["7a", "8b"]))).3, ["7a", "8b"]);
        assert_eq!(member(claims(json!("7a"))).3, ["7a"]);
        assert!(identity(claims(json!([7]))).is_err());
        assert!(identity(claims(json!(["a\nb"]))).is_err());
        assert!(identity(claims(json!(vec!["g"; 128]))).is_ok());
        assert!(identity(claims(json!(vec!["g"; 129]))).is_err());
    }

    #[test]
    fn claims_are_found_by_nested_path_and_by_a_name_with_dots() {
        let nested = rules(|config| {
            config.claims.role = "realm_access.role".into();
            config.claims.organization = "https://example.org/org".into();
        });
        let claims = json!({
            "sub": "alice", "https://example.org/org": "acme", "realm_access": {"role": "manager"},
        });
        let identity = nested.identity("https://id", claims.as_object().unwrap()).unwrap();
        let IdentityKind::Member { organization, role, .. } = identity.kind else { panic!("an operator") };
        assert_eq!((organization.as_deref(), role), (Some("acme"), Role::Manager));
    }

    #[test]
    fn ids_have_1_to_255_characters_and_no_control_characters() {
        assert!(identity(json!({"sub": "é".repeat(255)})).is_ok());
        for sub in [json!(""), json!("é".repeat(256)), json!("a\0b"), json!(7), Value::Null] {
            assert!(identity(json!({"sub": sub})).is_err(), "{sub}");
        }
        assert!(identity(json!({"sub": "alice", "org_id": "", "role": "member"})).is_err());
    }
}
