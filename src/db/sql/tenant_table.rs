//! The tenant as a part of every query. The architecture test finds a query of a tenant's table that says
//! neither which tenant it reads nor that it reads all of them.

use crate::domain::ids::TenantId;

/// The tables whose rows belong to tenants.
pub(in crate::db) trait OfTenant: Sized {
    /// The table, limited to one tenant.
    type Rows;

    /// Returns the rows of one tenant. Row-level security enforces the same; the condition lets PostgreSQL
    /// use the indexes, which begin with the tenant.
    fn of(self, tenant: TenantId) -> Self::Rows;
}

/// The tables that transactions across tenants read.
pub(in crate::db) trait AcrossTenants: Sized {
    /// Returns the rows of all tenants. Only a [`SystemTx`](crate::db::SystemTx) sees them.
    fn across_tenants(self) -> Self {
        self
    }
}

/// Lists the tables that have a column `tenant_id`.
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
