//! Startup checks: the service refuses to start with a role that could bypass row-level security.

use diesel::{
    QueryableByName,
    sql_types::{Bool, Text},
};

use super::{
    DbError,
    pool::Pool,
    sql::statement,
    tenant_tx::{begin_with, commit},
};
use crate::admission::Holder;

/// Why a role is refused.
#[derive(Debug, thiserror::Error)]
pub enum RoleError {
    /// The role could not be inspected.
    #[error(transparent)]
    Database(#[from] DbError),
    /// The role could read the rows of other tenants.
    #[error(
        "refusing to start: `{url_key}` connects as `{role}`, which {reasons}; row-level security would not apply to it. {advice}"
    )]
    CouldBypass {
        /// The configuration key of the connection URL.
        url_key: &'static str,
        role: String,
        /// The permissions by which it could bypass row-level security.
        reasons: String,
        /// The fix for the configuration.
        advice: &'static str,
    },
    /// The role is not a member of the role it needs.
    #[error(
        "refusing to start: `{url_key}` connects as `{role}`, which is not a member of `{needed}`; run `GRANT {needed} TO {role}`"
    )]
    NotAMember {
        /// The configuration key of the connection URL.
        url_key: &'static str,
        role: String,
        /// The role that must be granted to it.
        needed: &'static str,
    },
}

#[derive(QueryableByName)]
struct RolePermissions {
    #[diesel(sql_type = Text)]
    role: String,
    #[diesel(sql_type = Bool)]
    is_superuser: bool,
    #[diesel(sql_type = Bool)]
    can_bypass: bool,
    #[diesel(sql_type = Bool)]
    can_own: bool,
    #[diesel(sql_type = Bool)]
    is_app: bool,
    #[diesel(sql_type = Bool)]
    is_system: bool,
    #[diesel(sql_type = Bool)]
    is_other: bool,
}

/// Includes every role that the connected role can become with SET ROLE. SQL text, because the schema has no
/// catalog tables.
const ROLE_PERMISSIONS: &str = "
    SELECT current_user::text AS role,
           bool_or(rolsuper) AS is_superuser,
           bool_or(rolbypassrls) AS can_bypass,
           bool_or(EXISTS (SELECT FROM pg_class WHERE relowner = reachable.oid
                           AND relnamespace = 'public'::regnamespace)) AS can_own,
           bool_or(rolname = 'strongroom_app') AS is_app,
           bool_or(rolname = 'strongroom_system') AS is_system,
           bool_or(rolname IN ('strongroom_migrate', 'strongroom_backup')) AS is_other
    FROM pg_roles AS reachable
    WHERE pg_has_role(current_user, reachable.oid, 'MEMBER')";

pub(super) async fn check(tenants: &Pool, system: &Pool) -> Result<(), RoleError> {
    let app = read_permissions(tenants).await?;
    check_permissions(
        "database.url",
        &app,
        app.is_system,
        "Connect as a login role that is a member of strongroom_app only.",
    )?;
    if !app.is_app {
        return Err(RoleError::NotAMember {
            url_key: "database.url",
            role: app.role,
            needed: "strongroom_app",
        });
    }
    let system = read_permissions(system).await?;
    check_permissions(
        "database.system_url",
        &system,
        false,
        "Connect as a login role that is a member of strongroom_system only.",
    )?;
    if !system.is_system {
        return Err(RoleError::NotAMember {
            url_key: "database.system_url",
            role: system.role,
            needed: "strongroom_system",
        });
    }
    Ok(())
}

async fn read_permissions(pool: &Pool) -> Result<RolePermissions, DbError> {
    let mut connection = pool.acquire(Holder::PLATFORM).await?;
    // A pooler may give a statement outside a transaction two connections: to prepare it and to execute it.
    begin_with(&mut connection, "BEGIN").await?;
    // The catalog is not in the schema of the query builder.
    let permissions = statement("inspect role", ROLE_PERMISSIONS).one(&mut connection).await?;
    commit(connection).await?;
    Ok(permissions)
}

fn check_permissions(
    url_key: &'static str,
    permissions: &RolePermissions,
    is_system_member: bool,
    advice: &'static str,
) -> Result<(), RoleError> {
    let reasons: Vec<&str> = [
        (permissions.is_superuser, "is a superuser or can become one"),
        (permissions.can_bypass, "has or can take BYPASSRLS"),
        (permissions.can_own, "owns tables of the service or can become their owner"),
        (is_system_member, "is a member of strongroom_system, which sees every tenant"),
        (permissions.is_other, "is a member of strongroom_migrate or strongroom_backup"),
    ]
    .into_iter()
    .filter_map(|(holds, reason)| holds.then_some(reason))
    .collect();
    if reasons.is_empty() {
        return Ok(());
    }
    Err(RoleError::CouldBypass {
        url_key,
        role: permissions.role.clone(),
        reasons: reasons.join(", "),
        advice,
    })
}
