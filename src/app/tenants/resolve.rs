//! From verified claims to a caller in a tenant.

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
        kind: crate::domain::caller::ActorKind,
        /// The organisation's id at the issuer; absent in a personal context.
        organization: Option<String>,
        /// The role there. In a personal context the person is the admin of their own tenant.
        role: crate::domain::caller::Role,
        /// The groups (classes) the bearer belongs to.
        groups: Vec<String>,
    },
}
