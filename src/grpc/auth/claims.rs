//! Conversion of verified claims to an identity. Claims that cannot be read are rejected.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::{
    app::{
        CredentialsError, InvalidCredentials,
        tenants::resolve::{Identity, IdentityKind},
    },
    config::{
        AuthConfig,
        auth::{ClaimsConfig, IssuerConfig, Organizations, RoleName},
    },
    domain::{
        caller::{Actor, Role},
        scope::Scope,
        text::{self, EXTERNAL_ID_CHARACTERS_MAX},
    },
};

/// The rules for reading the claims of one issuer, and the trust in the issuer.
#[derive(Debug, Clone)]
pub(super) struct ClaimRules {
    paths: ClaimsConfig,
    roles: BTreeMap<String, RoleName>,
    role_default: Option<RoleName>,
    service_kind: String,
    organizations: Organizations,
    may_name_operators: bool,
    creates_tenants: Option<bool>,
    /// The scopes that the issuer may give.
    scopes: Vec<Scope>,
}

impl ClaimRules {
    /// Creates the rules of a configured issuer.
    pub(super) fn of_issuer(config: &AuthConfig, issuer: &IssuerConfig) -> Self {
        Self {
            paths: config.claims_of(issuer),
            roles: config.roles_of(issuer).clone(),
            organizations: issuer.organizations.clone(),
            may_name_operators: issuer.operators,
            creates_tenants: issuer.create_tenants,
            scopes: issuer.scopes.clone(),
            ..Self::of_dev_issuer(config)
        }
    }

    /// Creates the rules of the development issuer, which is trusted with everything.
    pub(super) fn of_dev_issuer(config: &AuthConfig) -> Self {
        Self {
            paths: config.claims.clone(),
            roles: config.roles.clone(),
            role_default: config.role_default,
            service_kind: config.service_kind.clone(),
            organizations: Organizations::Any,
            may_name_operators: true,
            creates_tenants: None,
            scopes: Scope::ALL.to_vec(),
        }
    }

    /// Reads the identity of the bearer from the verified claims of an issuer.
    pub(super) fn read_identity(
        &self,
        issuer: &str,
        claims: &Map<String, Value>,
    ) -> Result<Identity, CredentialsError> {
        let subject = read_id(claims, &self.paths.user)?
            .ok_or_else(|| InvalidCredentials::ClaimMissing(self.paths.user.clone()))?;
        let kind = self.read_identity_kind(claims, &subject)?;
        Ok(Identity { issuer: issuer.to_owned(), subject, kind, creates_tenants: self.creates_tenants })
    }

    fn read_identity_kind(
        &self,
        claims: &Map<String, Value>,
        subject: &str,
    ) -> Result<IdentityKind, CredentialsError> {
        let paths = &self.paths;
        let claimed = self.read_role(claims)?;
        let organization = read_id(claims, &paths.organization)?;
        self.check_organization(organization.as_deref(), claimed)?;
        let role = match (claimed, &organization) {
            (Some(RoleName::Operator), _) if self.may_name_operators => return Ok(IdentityKind::Operator),
            (Some(RoleName::Operator), _) => return Err(InvalidCredentials::OperatorNotAccepted.into()),
            // A person without an organization is the admin of their own tenant, whatever role the token
            // claims.
            (_, None) => Role::Admin,
            (Some(name), Some(_)) => role_in_tenant(name)?,
            (None, Some(_)) => match self.role_default {
                Some(name) => role_in_tenant(name)?,
                None => return Err(InvalidCredentials::ClaimMissing(paths.role.clone()).into()),
            },
        };
        let is_service = read_text(claims, &paths.kind)?.is_some_and(|kind| kind == self.service_kind);
        let actor = if is_service { Actor::service(subject) } else { Actor::user(subject) };
        // The id of a service is longer than its subject.
        check_id(&actor.id, &paths.user)?;
        let groups = read_groups(claims, &paths.groups)?;
        let scopes = read_scopes(claims, &paths.scope, &self.scopes)?;
        Ok(IdentityKind::Member { actor, organization, role, groups, scopes })
    }

    /// Checks that the issuer may sign tokens for this organization. Operators need none.
    fn check_organization(
        &self,
        organization: Option<&str>,
        claimed: Option<RoleName>,
    ) -> Result<(), CredentialsError> {
        let Organizations::Listed(accepted) = &self.organizations else { return Ok(()) };
        match organization {
            Some(id) if accepted.contains(id) => Ok(()),
            Some(id) => Err(InvalidCredentials::OrganizationNotAccepted(shorten(id)).into()),
            None if claimed == Some(RoleName::Operator) => Ok(()),
            None => Err(InvalidCredentials::OrganizationRequired.into()),
        }
    }

    /// Reads the role that the token claims. An unmapped role is rejected, even if it is not needed, because
    /// any replacement would be a guess.
    fn read_role(&self, claims: &Map<String, Value>) -> Result<Option<RoleName>, CredentialsError> {
        let Some(claimed) = read_text(claims, &self.paths.role)? else { return Ok(None) };
        match self.roles.get(claimed) {
            Some(name) => Ok(Some(*name)),
            None => Err(InvalidCredentials::RoleUnknown(shorten(claimed)).into()),
        }
    }
}

/// Returns the first characters of a claim, for an error.
fn shorten(claimed: &str) -> String {
    claimed.chars().take(64).collect()
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

/// Reads the scopes that the issuer may give: names separated by spaces, or a list of names. Ignores other scopes,
/// because the tokens of a user may be for several services.
fn read_scopes(
    claims: &Map<String, Value>,
    path: &str,
    accepted: &[Scope],
) -> Result<Vec<Scope>, CredentialsError> {
    if accepted.is_empty() {
        return Ok(Vec::new());
    }
    let invalid = || InvalidCredentials::ClaimNotScopes(path.to_owned());
    let names: Vec<&str> = match find_claim(claims, path) {
        None => return Ok(Vec::new()),
        Some(Value::String(text)) => text.split(' ').collect(),
        Some(Value::Array(values)) => {
            values.iter().map(|value| value.as_str().ok_or_else(invalid)).collect::<Result<_, _>>()?
        }
        Some(_) => return Err(invalid().into()),
    };
    Ok(accepted.iter().copied().filter(|scope| names.contains(&scope.as_str())).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{config::Config, domain::caller::ActorKind};

    fn issuer(keys: Value) -> IssuerConfig {
        let mut config = json!({"issuer": "https://id", "audience": "strongroom", "jwks_file": "keys"});
        config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        serde_json::from_value(config).unwrap()
    }

    /// Returns the rules of an issuer without settings of its own.
    fn rules(change: impl FnOnce(&mut AuthConfig)) -> ClaimRules {
        let mut config = Config::defaults().unwrap().auth;
        change(&mut config);
        ClaimRules::of_issuer(&config, &issuer(json!({})))
    }

    /// Returns the rules of an issuer with these settings. The role `operator` is mapped for all issuers.
    fn rules_of_issuer(keys: Value) -> ClaimRules {
        let mut config = Config::defaults().unwrap().auth;
        config.roles.insert("operator".into(), RoleName::Operator);
        ClaimRules::of_issuer(&config, &issuer(keys))
    }

    fn read_with(rules: &ClaimRules, claims: Value) -> Result<Identity, CredentialsError> {
        rules.read_identity("https://id", claims.as_object().unwrap())
    }

    fn read_identity(claims: Value) -> Result<Identity, CredentialsError> {
        rules(|_| {}).read_identity("https://id", claims.as_object().unwrap())
    }

    fn read_member(claims: Value) -> (ActorKind, Option<String>, Role, Vec<String>) {
        match read_identity(claims).unwrap().kind {
            IdentityKind::Member { actor, organization, role, groups, .. } => {
                (actor.kind, organization, role, groups)
            }
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
        let trusted = rules_of_issuer(json!({"operators": true}));
        let identity = read_with(&trusted, claims.clone()).unwrap();
        assert!(matches!(identity.kind, IdentityKind::Operator));
        let untrusted = error_message(read_with(&rules_of_issuer(json!({})), claims));
        assert_eq!(untrusted, "the token's issuer may not name operators");
    }

    #[test]
    fn issuer_has_its_own_roles_and_claims() {
        let own = rules_of_issuer(json!({
            "roles": {"boss": "admin"}, "claims": {"role": "realm.role", "organization": "realm.id"},
        }));
        let claims = |role: &str| json!({"sub": "alice", "realm": {"role": role, "id": "acme"}});
        let identity = read_with(&own, claims("boss")).unwrap();
        assert!(matches!(identity.kind, IdentityKind::Member { role: Role::Admin, .. }));
        assert_eq!(error_message(read_with(&own, claims("admin"))), r#"role "admin" is not configured"#);
    }

    #[test]
    fn issuer_is_limited_to_its_organizations() {
        let listed = rules_of_issuer(json!({"organizations": ["acme"], "operators": true}));
        let claims =
            |organization: Value, role: &str| json!({"sub": "a", "org_id": organization, "role": role});
        assert!(read_with(&listed, claims(json!("acme"), "member")).is_ok());
        assert!(read_with(&listed, claims(Value::Null, "operator")).is_ok());
        for role in ["member", "operator"] {
            let message = error_message(read_with(&listed, claims(json!("globex"), role)));
            assert_eq!(message, r#"organization "globex" is not accepted from the token's issuer"#);
        }
        assert!(error_message(read_with(&listed, claims(Value::Null, "member"))).contains("no organization"));
    }

    #[test]
    fn scopes_count_only_if_the_issuer_may_give_them() {
        let trusted = rules_of_issuer(json!({"scopes": ["credits:write"]}));
        let scopes_of = |rules: &ClaimRules, scope: Value| {
            let claims = json!({"sub": "billing", "kind": "service", "scope": scope});
            read_with(rules, claims).map(|identity| match identity.kind {
                IdentityKind::Member { scopes, .. } => scopes,
                IdentityKind::Operator => panic!("operator"),
            })
        };
        for scope in [json!("openid credits:write"), json!(["credits:write", "openid"])] {
            assert_eq!(scopes_of(&trusted, scope.clone()).unwrap(), [Scope::CreditsWrite]);
            assert_eq!(scopes_of(&rules_of_issuer(json!({})), scope).unwrap(), []);
        }
        for scope in [Value::Null, json!(""), json!("credits:writer"), json!([])] {
            assert_eq!(scopes_of(&trusted, scope).unwrap(), []);
        }
        for malformed in [json!(7), json!([7])] {
            let message = error_message(read_with(&trusted, json!({"sub": "billing", "scope": malformed})));
            assert_eq!(message, "claim `scope` must be a text or a list of texts");
        }
    }

    #[test]
    fn issuer_decides_whether_it_creates_tenants() {
        let claims = json!({"sub": "alice"});
        for (settings, expected) in [(json!({}), None), (json!({"create_tenants": false}), Some(false))] {
            let identity = read_with(&rules_of_issuer(settings), claims.clone()).unwrap();
            assert_eq!(identity.creates_tenants, expected);
        }
    }

    #[test]
    fn ids_of_services_have_at_most_255_characters() {
        let claims = |length: usize| json!({"sub": "s".repeat(length), "kind": "service"});
        assert!(read_identity(claims(247)).is_ok());
        assert!(read_identity(claims(248)).is_err());
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
