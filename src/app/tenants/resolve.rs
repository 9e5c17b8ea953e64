//! From verified claims to a caller in a tenant.

use crate::{
    app::{App, Error, Principal},
    db::tenants::TenantName,
    domain::caller::{Actor, ActorKind, Caller, Operator, Origin, Role, TenantKind},
};

/// What verified credentials say about their bearer.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Who vouches for it.
    pub issuer: String,
    /// The bearer's id there.
    pub subject: String,
    /// What the bearer is.
    pub standing: Standing,
}

/// What the bearer is.
#[derive(Debug, Clone)]
pub enum Standing {
    /// The platform's operator.
    Operator,
    /// A person or a service, in an organisation or by itself.
    Member {
        /// Person or service.
        kind: ActorKind,
        /// The organisation's id at the issuer; absent in a personal context.
        organization: Option<String>,
        /// The role there. In a personal context the person is the admin of their own tenant.
        role: Role,
        /// The groups (classes) the bearer belongs to.
        groups: Vec<String>,
    },
}

/// Finds the tenant of an identity, or lets it be born, and answers who calls.
///
/// # Errors
/// `NotAllowed` for an organisation that nobody created where the configuration wants that; `TenantSuspended`,
/// `TenantDeleted`; `DatabaseUnavailable`.
pub async fn resolve(app: &App, identity: Identity, origin: Origin) -> Result<Principal, Error> {
    let Identity { issuer, subject, standing } = identity;
    let Standing::Member { kind, organization, role, groups } = standing else {
        let actor = Actor { kind: ActorKind::Operator, id: subject };
        return Ok(Principal::Operator(Operator { actor, origin }));
    };
    let (tenant_kind, external_id) = match organization {
        Some(organization) => (TenantKind::Organization, organization),
        None => (TenantKind::Person, subject.clone()),
    };
    let name = TenantName { kind: tenant_kind, issuer, external_id };
    let tenant = app.tenants.get(app, name).await?;
    Error::unless_active(tenant.state)?;
    Ok(Principal::Caller(Caller { tenant, actor: Actor { kind, id: subject }, role, groups, origin }))
}
