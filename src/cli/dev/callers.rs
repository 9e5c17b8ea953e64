//! The callers for which `dev` issues tokens: members of two organizations in all roles, a service, an
//! operator, and a person without an organization, who is the same user as `acme_member`.

use std::{collections::BTreeMap, sync::Arc};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::{Failure, secrets::Secrets};
use crate::{
    app::{
        App, Principal,
        tenants::resolve::{Identity, IdentityKind, resolve_principal},
    },
    domain::{
        caller::{Actor, Origin, Role},
        clock::{Clock as _, SystemClock},
        scope::Scope,
    },
    grpc::auth::DevIssuer,
};

/// The `iss` and `aud` claims of the tokens.
const ISSUER: &str = "strongroom-dev";
const AUDIENCE: &str = "strongroom";
/// The lifetime of the tokens. `dev` issues new ones at every start.
const TOKEN_DAYS: i64 = 30;
/// The group of `acme_admin`, `acme_manager` and `acme_member`.
const GROUP: &str = "class-7a";

struct DevCaller {
    name: &'static str,
    user: &'static str,
    organization: Option<&'static str>,
    role: Option<&'static str>,
    groups: &'static [&'static str],
    kind: Option<&'static str>,
    scopes: &'static [Scope],
}

const fn member(
    name: &'static str,
    user: &'static str,
    organization: &'static str,
    role: &'static str,
) -> DevCaller {
    let (organization, role) = (Some(organization), Some(role));
    DevCaller { name, user, organization, role, groups: &[], kind: None, scopes: &[] }
}

const CALLERS: [DevCaller; 9] = [
    DevCaller { groups: &[GROUP], ..member("acme_admin", "acme-admin", "acme", "admin") },
    DevCaller { groups: &[GROUP], ..member("acme_manager", "acme-manager", "acme", "manager") },
    DevCaller { groups: &[GROUP], ..member("acme_member", "acme-member", "acme", "member") },
    member("acme_member2", "acme-member-2", "acme", "member"),
    member("globex_admin", "globex-admin", "globex", "admin"),
    member("globex_member", "globex-member", "globex", "member"),
    DevCaller {
        name: "personal",
        user: "acme-member",
        organization: None,
        role: None,
        groups: &[],
        kind: None,
        scopes: &[],
    },
    DevCaller {
        name: "operator",
        user: "platform-operator",
        organization: None,
        role: Some("operator"),
        groups: &[],
        kind: None,
        scopes: &[],
    },
    DevCaller {
        kind: Some("service"),
        scopes: &[Scope::CreditsWrite],
        ..member("service", "billing-service", "acme", "admin")
    },
];

/// The callers as written to `dev.json`.
pub(super) struct CallerRecords {
    /// The token of each caller, by name.
    pub(super) tokens: BTreeMap<&'static str, String>,
    /// The claims and the tenant id of each caller, by name.
    pub(super) callers: BTreeMap<&'static str, Value>,
}

/// Returns the issuer that the service must trust to accept these tokens.
pub(super) fn dev_issuer(secrets: &Secrets) -> DevIssuer {
    DevIssuer { issuer: ISSUER.to_owned(), audience: AUDIENCE.to_owned(), secret: secrets.jwt_secret() }
}

/// Signs the tokens, and creates the tenants so that their ids can be included.
pub(super) async fn prepare_callers(app: &Arc<App>, secrets: &Secrets) -> Result<CallerRecords, Failure> {
    let mut records = CallerRecords { tokens: BTreeMap::new(), callers: BTreeMap::new() };
    for caller in &CALLERS {
        records.tokens.insert(caller.name, sign_token(caller, secrets)?);
        let tenant_id = match resolve_principal(app, identity(caller)?, Origin::default()).await? {
            Principal::Caller(caller) => Some(caller.tenant_id().to_string()),
            Principal::Operator(_) => None,
        };
        let record = json!({
            "user": caller.user,
            "organization": caller.organization,
            "role": caller.role,
            "groups": caller.groups,
            "tenant_id": tenant_id,
        });
        records.callers.insert(caller.name, record);
    }
    Ok(records)
}

fn identity(caller: &DevCaller) -> Result<Identity, Failure> {
    let role = match caller.role {
        Some("operator") => None,
        Some("member") => Some(Role::Member),
        Some("manager") => Some(Role::Manager),
        Some("admin") | None => Some(Role::Admin),
        Some(other) => return Err(format!("unknown role {other}").into()),
    };
    let kind = match role {
        None => IdentityKind::Operator,
        Some(role) => IdentityKind::Member {
            actor: if caller.kind.is_some() { Actor::service(caller.user) } else { Actor::user(caller.user) },
            organization: caller.organization.map(str::to_owned),
            role,
            groups: caller.groups.iter().map(|group| (*group).to_owned()).collect(),
            scopes: caller.scopes.to_vec(),
        },
    };
    let (issuer, subject) = (ISSUER.to_owned(), caller.user.to_owned());
    Ok(Identity { issuer, subject, kind, creates_tenants: None })
}

fn sign_token(caller: &DevCaller, secrets: &Secrets) -> Result<String, Failure> {
    let now = SystemClock.now();
    let claims = json!({
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": caller.user,
        "org_id": caller.organization,
        "role": caller.role,
        "groups": caller.groups,
        "kind": caller.kind,
        "scope": caller.scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>(),
        "iat": now.timestamp(),
        "exp": (now + chrono::Duration::days(TOKEN_DAYS)).timestamp(),
    });
    let claims: serde_json::Map<String, Value> = match claims {
        Value::Object(claims) => claims.into_iter().filter(|(_, value)| !value.is_null()).collect(),
        _ => return Err("claims are not a JSON object".into()),
    };
    let key = EncodingKey::from_secret(secrets.jwt_secret().expose_secret().as_bytes());
    Ok(jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key)?)
}
