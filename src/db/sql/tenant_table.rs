//! The tenant of a query. `tests/architecture/queries.rs` requires that a query of a tenant's table calls
//! `of` or `across_tenants`, inserts, or joins on the tenant.

use crate::domain::ids::TenantId;

/// A table whose rows belong to tenants.
pub(in crate::db) trait OfTenant: Sized {
    /// The table, limited to one tenant.
    type Rows;

    /// Returns the rows of one tenant. Row-level security enforces the same; the condition lets PostgreSQL
    /// use the indexes, which begin with the tenant.
    fn of(self, tenant: TenantId) -> Self::Rows;
}

/// A table that a transaction across tenants can read.
pub(in crate::db) trait AcrossTenants: Sized {
    /// Returns the rows of all tenants. Only a [`SystemTx`](crate::db::SystemTx) sees them.
    fn across_tenants(self) -> Self {
        self
    }
}

/// Implements [`OfTenant`] and [`AcrossTenants`] for tables that have a column `tenant_id`.
macro_rules! tenant_tables {
    ($($table:ident),+ $(,)?) => {$(
        impl $crate::db::sql::OfTenant for $table::table {
            type Rows = diesel::dsl::Filter<
                $table::table,
                diesel::dsl::Eq<$table::tenant_id, $crate::domain::ids::TenantId>,
            >;

            fn of(self, tenant: $crate::domain::ids::TenantId) -> Self::Rows {
                diesel::QueryDsl::filter(self, diesel::ExpressionMethods::eq($table::tenant_id, tenant))
            }
        }

        impl $crate::db::sql::AcrossTenants for $table::table {}
    )+};
}

pub(in crate::db) use tenant_tables;
