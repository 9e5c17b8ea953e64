//! The rows of the report: the measurements and their names.

use std::mem;

use crate::{
    environment::Store,
    lists::{Depth, Order, PageRow, Viewer},
    meter::Unit,
};

/// The tenants that upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tenants {
    /// 64 organizations in turn.
    Many,
    /// A single tenant, with contention on its quota row.
    One,
}

/// Whether the request signature covers the body, which costs a SHA-256 on the client and on the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signing {
    Payload,
    Headers,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Row {
    /// Upload of a large file in one stream.
    Upload(Store),
    /// Download of a large file in one stream.
    Download(Store),
    /// Upload of a large file directly to the S3 server, without the service.
    Direct(Signing),
    /// Upload of small files.
    Small { store: Store, clients: usize, tenants: Tenants },
    /// Insertion of the database rows of those small files, without the service.
    Pgbench { clients: usize, tenants: Tenants },
    /// Writing the bytes of those small files to disk, without the service.
    Fsync { clients: usize },
    /// Pages of a list.
    List(PageRow),
    /// Concurrent upload of many large files.
    ConcurrentUploads,
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
            small(Store::Discard, 64, One),
            Self::Pgbench { clients: 64, tenants: One },
            small(Store::Discard, 64, Many),
            small(Store::Local, 16, One),
            small(Store::Local, 64, One),
        ]);
        rows.extend(list_rows());
        rows.push(Self::ConcurrentUploads);
        rows
    }

    /// Returns the first row of each kind.
    pub(crate) fn first_of_each_kind(rows: &[Self]) -> Vec<Self> {
        let mut first: Vec<Self> = Vec::new();
        for row in rows {
            if !first.iter().any(|seen| mem::discriminant(seen) == mem::discriminant(row)) {
                first.push(*row);
            }
        }
        first
    }

    /// Returns whether the service does not take part in the row.
    pub(crate) fn is_baseline(self) -> bool {
        matches!(self, Self::Direct(_) | Self::Pgbench { .. } | Self::Fsync { .. })
    }

    /// Returns the store of the service that the row needs, if it needs one.
    pub(crate) fn store(self) -> Option<Store> {
        match self {
            Self::Upload(store) | Self::Download(store) | Self::Small { store, .. } => Some(store),
            _ => None,
        }
    }

    pub(crate) fn name(self) -> String {
        let tenants_name = |tenants| if tenants == Tenants::Many { "64 tenants" } else { "one hot tenant" };
        match self {
            Self::Upload(store) => format!("large upload, {}", store.name()),
            Self::Download(store) => format!("large download, {}", store.name()),
            Self::Direct(Signing::Payload) => "baseline direct multipart, signed".to_owned(),
            Self::Direct(Signing::Headers) => "baseline direct multipart, unsigned".to_owned(),
            Self::Small { store, clients, tenants } => {
                format!("small uploads, {}, {clients} clients, {}", store.name(), tenants_name(tenants))
            }
            Self::Pgbench { clients, tenants } => {
                format!("baseline pgbench, {clients} clients, {}", tenants_name(tenants))
            }
            Self::Fsync { clients } => format!("baseline fsync, {clients} threads"),
            Self::List(PageRow { order, viewer, depth, clients }) => {
                format!("list, {}, {}, {}, {clients} clients", order.name(), depth.name(), viewer.name())
            }
            Self::ConcurrentUploads => "64 concurrent large uploads, discard store".to_owned(),
        }
    }

    pub(crate) fn unit(self) -> Unit {
        match self {
            Self::Upload(_) | Self::Download(_) | Self::Direct(_) | Self::ConcurrentUploads => {
                Unit::Gibibytes
            }
            Self::Small { .. } | Self::Pgbench { .. } | Self::Fsync { .. } => Unit::Files,
            Self::List(_) => Unit::Pages,
        }
    }

    /// Returns the maximum number of rounds. The memory peak needs no median, and this row takes a minute.
    pub(crate) fn rounds_max(self) -> usize {
        if self == Self::ConcurrentUploads { 1 } else { usize::MAX }
    }
}

/// Returns the rows of lists: one client for the latency, several for the throughput.
fn list_rows() -> impl Iterator<Item = Row> {
    let row = |order, viewer, depth, clients| Row::List(PageRow { order, viewer, depth, clients });
    [
        row(Order::Newest, Viewer::Member, Depth::First, 1),
        row(Order::Newest, Viewer::Member, Depth::Middle, 1),
        row(Order::Name, Viewer::Member, Depth::First, 1),
        row(Order::Name, Viewer::Member, Depth::Middle, 1),
        row(Order::Name, Viewer::Admin, Depth::Middle, 1),
        row(Order::Newest, Viewer::Member, Depth::First, 16),
    ]
    .into_iter()
}
