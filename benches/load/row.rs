//! The rows: what is measured, and what each is called.

use crate::{meter::Unit, site::Store};

/// Whose files they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tenants {
    /// 64 organisations in turn.
    Many,
    /// One, whose quota row everyone waits for.
    One,
}

/// Whether the signature covers the bytes, which costs the client a SHA-256 of them, and the server another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signing {
    Payload,
    Headers,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Row {
    /// A large file up, one stream.
    Upload(Store),
    /// A large file down, one stream.
    Download(Store),
    /// A large file into the S3 server, without a service.
    Direct(Signing),
    /// Small files up.
    Small { store: Store, clients: usize, tenants: Tenants },
    /// The rows of those small files, without a service.
    Pgbench { clients: usize, tenants: Tenants },
    /// The bytes of those small files, without a service.
    Fsync { clients: usize },
    /// Many large files up at once.
    Crowd,
}

impl Row {
    pub(crate) fn all() -> Vec<Self> {
        use Tenants::{Many, One};
        let small = |store, clients, tenants| Self::Small { store, clients, tenants };
        let mut rows = Vec::new();
        let stores = Store::all();
        for store in stores.iter().copied() {
            rows.extend([Self::Upload(store), Self::Download(store)]);
        }
        if stores.contains(&Store::Garage) {
            rows.extend([Self::Direct(Signing::Payload), Self::Direct(Signing::Headers)]);
            rows.push(small(Store::Garage, 16, Many));
        }
        for clients in [1, 16, 64] {
            rows.extend([
                small(Store::Local, clients, Many),
                Self::Pgbench { clients, tenants: Many },
                Self::Fsync { clients },
            ]);
        }
        rows.extend([
            small(Store::Costless, 64, One),
            Self::Pgbench { clients: 64, tenants: One },
            small(Store::Costless, 64, Many),
            small(Store::Local, 16, One),
            small(Store::Local, 64, One),
            Self::Crowd,
        ]);
        rows
    }

    pub(crate) fn name(self) -> String {
        let of = |tenants| if tenants == Tenants::Many { "64 tenants" } else { "one hot tenant" };
        match self {
            Self::Upload(store) => format!("large upload, {}", store.name()),
            Self::Download(store) => format!("large download, {}", store.name()),
            Self::Direct(Signing::Payload) => "baseline direct multipart, signed".to_owned(),
            Self::Direct(Signing::Headers) => "baseline direct multipart, unsigned".to_owned(),
            Self::Small { store, clients, tenants } => {
                format!("small uploads, {}, {clients} clients, {}", store.name(), of(tenants))
            }
            Self::Pgbench { clients, tenants } => {
                format!("baseline pgbench, {clients} clients, {}", of(tenants))
            }
            Self::Fsync { clients } => format!("baseline fsync, {clients} threads"),
            Self::Crowd => "crowd of 64 large uploads, costless store".to_owned(),
        }
    }

    pub(crate) fn unit(self) -> Unit {
        match self {
            Self::Upload(_) | Self::Download(_) | Self::Direct(_) | Self::Crowd => Unit::Gibibytes,
            Self::Small { .. } | Self::Pgbench { .. } | Self::Fsync { .. } => Unit::Files,
        }
    }

    /// A peak is no matter of medians, and this row takes a minute.
    pub(crate) fn rounds_max(self) -> usize {
        if self == Self::Crowd { 1 } else { usize::MAX }
    }
}
