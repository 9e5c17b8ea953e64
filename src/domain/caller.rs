//! Who is calling. Built once per request from verified credentials, never from a bare header.

use std::sync::Arc;

use super::{
    ids::TenantId,
    policy::Policy,
    principal::{group_principal, user_principal},
    sql_enum::sql_enum,
};

sql_enum! {
    /// What a caller may do in its tenant. Ordered: an admin may all that a manager may.
    Role {
        /// Uses files.
        Member = 1 => "member",
        /// Also sees what is meant for managers.
        Manager = 2 => "manager",
        /// Sees and does everything in the tenant.
        Admin = 3 => "admin",
    }
}

sql_enum! {
    /// What acts.
    ActorKind {
        /// A person.
        User = 1 => "user",
        /// A backend without a person behind the call.
        Service = 2 => "service",
        /// The platform's operator.
        Operator = 3 => "operator",
        /// Strongroom itself.
        System = 4 => "system",
    }
}

sql_enum! {
    /// What a tenant is.
    TenantKind {
        /// An organisation.
        Organization = 1 => "organization",
        /// One person, outside any organisation.
        Person = 2 => "person",
    }
}

sql_enum! {
    /// Where a tenant is in its life.
    TenantState {
        /// It is served.
        Active = 1 => "active",
        /// Its callers are refused, reads too; nothing is removed.
        Suspended = 2 => "suspended",
        /// Its rows and bytes are being removed. There is no way back.
        Deleting = 3 => "deleting",
        /// Nothing of it is left but its record and its audit log.
        Deleted = 4 => "deleted",
    }
}

/// An organisation or one person, with the policy it was born with.
#[derive(Debug, Clone)]
pub struct Tenant {
    /// Our id.
    pub id: TenantId,
    /// Organisation or person.
    pub kind: TenantKind,
    /// Whether it is served.
    pub state: TenantState,
    /// The rules that hold for it.
    pub policy: Policy,
}

/// Whoever acts, as rows and audit entries name it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Actor {
    /// What it is.
    pub kind: ActorKind,
    /// The claim's subject. Opaque text.
    pub id: String,
}

impl Actor {
    /// Strongroom itself.
    pub fn system() -> Self {
        Self { kind: ActorKind::System, id: "strongroom".to_owned() }
    }
}

/// Where a request came from, for logs and audit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The id of this call: the one that a proxy gave it, or a new one.
    pub call_id: String,
    /// The peer's address, empty where it is unknown.
    pub address: String,
}

/// A caller inside one tenant.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The tenant; every row the caller can reach belongs to it.
    pub tenant: Arc<Tenant>,
    /// Who.
    pub actor: Actor,
    /// What it may do there.
    pub role: Role,
    /// The groups (classes) it belongs to, by their outside ids.
    pub groups: Vec<String>,
    /// Where the request came from.
    pub origin: Origin,
}

/// The platform's operator: works on tenants, never reads their files.
#[derive(Debug, Clone)]
pub struct Operator {
    /// Who.
    pub actor: Actor,
    /// Where the request came from.
    pub origin: Origin,
}

impl Caller {
    /// The tenant's id.
    pub fn tenant_id(&self) -> TenantId {
        self.tenant.id
    }

    /// The names under which files can be granted to this caller: itself, and its groups.
    pub fn principals(&self) -> Vec<String> {
        std::iter::once(user_principal(&self.actor.id))
            .chain(self.groups.iter().map(|group| group_principal(group)))
            .collect()
    }
}
