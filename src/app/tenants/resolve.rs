//! Resolves verified claims to a caller in a tenant.

use crate::{
    app::{App, Error, Principal},
    db::tenants::TenantName,
    domain::caller::{Actor, ActorKind, Caller, Operator, Origin, Role, TenantKind},
};

/// The identity of the bearer of verified credentials.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The identity provider that issued the credentials.
    pub issuer: String,
    /// The bearer's id at the issuer.
    pub subject: String,
    pub kind: IdentityKind,
}

/// Whether the bearer is the operator or a member of a tenant.
#[derive(Debug, Clone)]
pub enum IdentityKind {
    /// The operator of the platform.
    Operator,
    /// A person or service, in an organization or in a personal context.
    Member {
        kind: ActorKind,
        /// The organization's id at the issuer; `None` in a personal context.
        organization: Option<String>,
        /// The role in the organization. In a personal context the person is the admin of their own tenant.
        role: Role,
        /// The groups (classes) that the bearer belongs to.
        groups: Vec<String>,
    },
}

/// Resolves an identity to a principal. Creates the tenant on first use if the configuration allows it.
///
/// # Errors
/// Returns `NotAllowed` if the tenant does not exist and must be created by the operator first,
/// `TenantSuspended`, `TenantDeleted` or `DatabaseUnavailable`.
pub async fn resolve_principal(app: &App, identity: Identity, origin: Origin) -> Result<Principal, Error> {
    let Identity { issuer, subject, kind: identity_kind } = identity;
    let IdentityKind::Member { kind, organization, role, groups } = identity_kind else {
        let actor = Actor { kind: ActorKind::Operator, id: subject };
        return Ok(Principal::Operator(Operator { actor, origin }));
    };
    let (tenant_kind, external_id) = match organization {
        Some(organization) => (TenantKind::Organization, organization),
        None => (TenantKind::Person, subject.clone()),
    };
    let name = TenantName { kind: tenant_kind, issuer, external_id };
    let tenant = app.tenants.get_or_create(app, name).await?;
    Error::check_tenant_active(tenant.state)?;
    Ok(Principal::Caller(Caller { tenant, actor: Actor { kind, id: subject }, role, groups, origin }))
}
