//! The callers that `dev` has tokens for: two organisations with their roles, a service, an operator, and one person
//! without an organisation, who is the same user as `acme_member`.

use std::collections::BTreeMap;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::{Failure, secrets::Secrets};
use crate::{
    app::{
        App, Principal,
        tenants::resolve::{Identity, Standing, resolve},
    },
    domain::{
        caller::{ActorKind, Origin, Role},
        clock::{Clock as _, SystemClock},
    },
    grpc::auth::DevIssuer,
};

/// What the tokens say about where they come from and whom they are for.
const ISSUER: &str = "strongroom-dev";
const AUDIENCE: &str = "strongroom";
/// How long the tokens hold. `dev` makes new ones at every start.
const TOKEN_DAYS: i64 = 30;
/// The class that `acme_manager` and `acme_member` share.
const CLASS: &str = "class-7a";

struct DevCaller {
    name: &'static str,
    user: &'static str,
    organization: Option<&'static str>,
    role: Option<&'static str>,
    groups: &'static [&'static str],
    kind: Option<&'static str>,
}

const fn member(
    name: &'static str,
    user: &'static str,
    organization: &'static str,
    role: &'static str,
) -> DevCaller {
    DevCaller { name, user, organization: Some(organization), role: Some(role), groups: &[], kind: None }
}

const CALLERS: [DevCaller; 9] = [
    DevCaller { groups: &[CLASS], ..member("acme_admin", "acme-admin", "acme", "admin") },
    DevCaller { groups: &[CLASS], ..member("acme_manager", "acme-manager", "acme", "manager") },
    DevCaller { groups: &[CLASS], ..member("acme_member", "acme-member", "acme", "member") },
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
    },
    DevCaller {
        name: "operator",
        user: "platform-operator",
        organization: None,
        role: Some("operator"),
        groups: &[],
        kind: None,
    },
    DevCaller { kind: Some("service"), ..member("service", "billing-service", "acme", "admin") },
];

/// What `dev.json` says about them.
pub(super) struct Described {
    /// A token per name.
    pub(super) tokens: BTreeMap<&'static str, String>,
    /// Who each is.
    pub(super) callers: BTreeMap<&'static str, Value>,
}

/// The issuer of these tokens.
pub(super) fn issuer(secrets: &Secrets) -> DevIssuer {
    DevIssuer { issuer: ISSUER.to_owned(), audience: AUDIENCE.to_owned(), secret: secrets.jwt_secret() }
}

/// Mints the tokens, and lets the tenants be born, so that their ids can be told.
pub(super) async fn describe(app: &App, secrets: &Secrets) -> Result<Described, Failure> {
    let mut described = Described { tokens: BTreeMap::new(), callers: BTreeMap::new() };
    for caller in &CALLERS {
        described.tokens.insert(caller.name, token(caller, secrets)?);
        let tenant_id = match resolve(app, identity(caller)?, Origin::default()).await? {
            Principal::Caller(caller) => Some(caller.tenant_id().to_string()),
            Principal::Operator(_) => None,
        };
        let who = json!({
            "user": caller.user,
            "organization": caller.organization,
            "role": caller.role,
            "groups": caller.groups,
            "tenant_id": tenant_id,
        });
        described.callers.insert(caller.name, who);
    }
    Ok(described)
}

fn identity(caller: &DevCaller) -> Result<Identity, Failure> {
    let role = match caller.role {
        Some("operator") => None,
        Some("member") => Some(Role::Member),
        Some("manager") => Some(Role::Manager),
        Some("admin") | None => Some(Role::Admin),
        Some(other) => return Err(format!("no role {other}").into()),
    };
    let standing = match role {
        None => Standing::Operator,
        Some(role) => Standing::Member {
            kind: if caller.kind.is_some() { ActorKind::Service } else { ActorKind::User },
            organization: caller.organization.map(str::to_owned),
            role,
            groups: caller.groups.iter().map(|group| (*group).to_owned()).collect(),
        },
    };
    Ok(Identity { issuer: ISSUER.to_owned(), subject: caller.user.to_owned(), standing })
}

fn token(caller: &DevCaller, secrets: &Secrets) -> Result<String, Failure> {
    let now = SystemClock.now();
    let claims = json!({
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": caller.user,
        "org_id": caller.organization,
        "role": caller.role,
        "groups": caller.groups,
        "kind": caller.kind,
        "iat": now.timestamp(),
        "exp": (now + chrono::Duration::days(TOKEN_DAYS)).timestamp(),
    });
    let claims: serde_json::Map<String, Value> = match claims {
        Value::Object(claims) => claims.into_iter().filter(|(_, value)| !value.is_null()).collect(),
        _ => return Err("claims are no object".into()),
    };
    let key = EncodingKey::from_secret(secrets.jwt_secret().expose_secret().as_bytes());
    Ok(jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key)?)
}
