//! Resolves verified claims to a caller in a tenant.

use std::sync::Arc;

use super::first_call::ProvisionalCall;
use crate::{
    admission::{CallerKey, Holder},
    app::{App, Error, Principal},
    db::tenants::TenantName,
    domain::{
        caller::{Actor, ActorKind, Caller, Operator, Origin, Role, Tenant, TenantKind},
        scope::Scope,
    },
};

/// The identity of the bearer of verified credentials.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The identity provider that issued the credentials.
    pub issuer: String,
    /// The bearer's id at the issuer.
    pub subject: String,
    pub kind: IdentityKind,
    /// Whether the issuer may create tenants; `None` means the setting for all issuers.
    pub creates_tenants: Option<bool>,
}

/// Whether the bearer is the operator or a member of a tenant.
#[derive(Debug, Clone)]
pub enum IdentityKind {
    /// The operator of the platform.
    Operator,
    /// A person or service, in an organization or in a personal context.
    Member {
        /// The bearer. A user and a service with the same subject are different actors.
        actor: Actor,
        /// The organization's id at the issuer; `None` in a personal context.
        organization: Option<String>,
        /// The role in the organization. In a personal context the person is the admin of their own tenant.
        role: Role,
        /// The groups (classes) that the bearer belongs to.
        groups: Vec<String>,
        /// The scopes of the token that its issuer may give.
        scopes: Vec<Scope>,
    },
}

impl Identity {
    /// Returns the name of the bearer's tenant, or `None` for an operator. The issuer is part of the name, so a
    /// tenant is never reached through another issuer.
    pub fn tenant_name(&self) -> Option<TenantName> {
        let IdentityKind::Member { actor, organization, .. } = &self.kind else { return None };
        let (kind, external_id) = match organization {
            Some(organization) => (TenantKind::Organization, organization),
            None => (TenantKind::Person, &actor.id),
        };
        Some(TenantName { kind, issuer: self.issuer.clone(), external_id: external_id.clone() })
    }

    fn into_principal(self, tenant: Option<Arc<Tenant>>, origin: Origin) -> Result<Principal, Error> {
        match (self.kind, tenant) {
            (IdentityKind::Member { actor, role, groups, scopes, .. }, Some(tenant)) => {
                Error::check_tenant_active(tenant.state)?;
                let first_call = None;
                Ok(Principal::Caller(Caller { tenant, actor, role, groups, scopes, origin, first_call }))
            }
            (IdentityKind::Operator, None) => {
                let actor = Actor { kind: ActorKind::Operator, id: self.subject };
                Ok(Principal::Operator(Operator { issuer: self.issuer, actor, origin }))
            }
            (IdentityKind::Member { .. }, None) | (IdentityKind::Operator, Some(_)) => {
                Err(Error::internal("only members have a tenant"))
            }
        }
    }
}

/// A member of a tenant that does not exist yet and may be created. The call has not been accepted yet.
#[derive(Debug, Clone)]
pub struct Newcomer {
    identity: Identity,
    name: TenantName,
    origin: Origin,
}

/// The sender of a request.
#[derive(Debug, Clone)]
pub enum Sender {
    /// An operator, or a member of an existing tenant.
    Known(Principal),
    /// A member of a tenant that does not exist yet.
    Newcomer(Newcomer),
}

/// Resolves an identity, without creating a tenant.
///
/// # Errors
/// Returns `TenantSuspended`, `TenantDeleted` or `DatabaseUnavailable`.
pub async fn resolve_sender(app: &App, identity: Identity, origin: Origin) -> Result<Sender, Error> {
    let Some(name) = identity.tenant_name() else {
        return Ok(Sender::Known(identity.into_principal(None, origin)?));
    };
    match app.tenants.find(app, &name).await? {
        Some(tenant) => Ok(Sender::Known(identity.into_principal(Some(tenant), origin)?)),
        None => Ok(Sender::Newcomer(Newcomer { identity, name, origin })),
    }
}

impl Newcomer {
    /// Returns the name of the tenant, which has no id yet.
    pub fn tenant_name(&self) -> &TenantName {
        &self.name
    }

    /// Returns the holder of what the call takes. First calls may last, and must leave room to colleagues.
    pub fn holder(&self) -> Holder {
        match &self.identity.kind {
            IdentityKind::Member { actor, .. } => Holder::of_newcomer(&self.name, CallerKey::of_actor(actor)),
            IdentityKind::Operator => Holder::of_name(&self.name),
        }
    }

    /// Returns the origin of the request.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Checks that the first call of a newcomer may create the tenant.
    ///
    /// # Errors
    /// Returns `NotAllowed` if the operator must create it first.
    pub fn check_may_create(&self, app: &App) -> Result<(), Error> {
        app.tenants.check_may_create(self.identity.creates_tenants)
    }

    /// Creates the tenant provisionally, unless it exists since. Returns the principal, and the call in the
    /// provisional tenant, which decides whether the tenant will exist.
    ///
    /// # Errors
    /// Returns `NotAllowed` if the operator must create the tenant first, `TenantCreationsExhausted`,
    /// `TenantSuspended`, `TenantDeleted` or `DatabaseUnavailable`.
    pub async fn join_tenant(self, app: &Arc<App>) -> Result<(Principal, Option<ProvisionalCall>), Error> {
        let Self { identity, name, origin } = self;
        app.tenants.check_may_create(identity.creates_tenants)?;
        let (tenant, call) = app.tenants.join_or_create(app, name).await?;
        tracing::Span::current().record("tenant", tracing::field::display(tenant.id));
        let mut principal = identity.into_principal(Some(tenant), origin)?;
        if let (Principal::Caller(caller), Some(call)) = (&mut principal, &call) {
            caller.first_call = call.work();
        }
        Ok((principal, call))
    }
}

/// Resolves an identity to a principal, and creates a missing tenant if the configuration allows it.
///
/// # Errors
/// See [`resolve_sender`] and [`Newcomer::join_tenant`].
pub async fn resolve_principal(
    app: &Arc<App>,
    identity: Identity,
    origin: Origin,
) -> Result<Principal, Error> {
    match resolve_sender(app, identity, origin).await? {
        Sender::Known(principal) => Ok(principal),
        Sender::Newcomer(newcomer) => {
            let (principal, call) = newcomer.join_tenant(app).await?;
            if let Some(call) = call {
                call.succeed().await;
            }
            Ok(principal)
        }
    }
}
