//! The service refuses to start with a role that could step over row-level security.

use diesel::{
    QueryableByName,
    sql_types::{Bool, Text},
};

use super::{DbError, pool::Pool, statement::statement};

/// Why a role is refused.
#[derive(Debug, thiserror::Error)]
pub enum RoleError {
    /// The database could not be asked.
    #[error(transparent)]
    Database(#[from] DbError),
    /// The role could see other tenants' rows.
    #[error(
        "refusing to start: `{url_key}` connects as `{role}`, which {reasons}; row-level security would not bind it. {advice}"
    )]
    CouldBypass {
        /// The configuration key.
        url_key: &'static str,
        /// The role.
        role: String,
        /// What it could do.
        reasons: String,
        /// What to do instead.
        advice: &'static str,
    },
    /// The role lacks what it needs.
    #[error(
        "refusing to start: `{url_key}` connects as `{role}`, which is not a member of `{needed}`; run `GRANT {needed} TO {role}`"
    )]
    NotAMember {
        /// The configuration key.
        url_key: &'static str,
        /// The role.
        role: String,
        /// The role it must be granted.
        needed: &'static str,
    },
}

#[derive(QueryableByName)]
struct Powers {
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

/// Counts every role that the connected one could become, because SET ROLE is one statement away.
const POWERS: &str = "
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
    let app = powers(tenants).await?;
    refuse(
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
    let system = powers(system).await?;
    refuse(
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

async fn powers(pool: &Pool) -> Result<Powers, DbError> {
    let mut connection = pool.acquire().await?;
    statement("inspect role", POWERS).one(&mut connection).await
}

fn refuse(
    url_key: &'static str,
    powers: &Powers,
    reaches_system: bool,
    advice: &'static str,
) -> Result<(), RoleError> {
    let reasons: Vec<&str> = [
        (powers.is_superuser, "is a superuser or can become one"),
        (powers.can_bypass, "has or can take BYPASSRLS"),
        (powers.can_own, "owns tables of the service or can become their owner"),
        (reaches_system, "is a member of strongroom_system, which sees every tenant"),
        (powers.is_other, "is a member of strongroom_migrate or strongroom_backup"),
    ]
    .into_iter()
    .filter_map(|(holds, reason)| holds.then_some(reason))
    .collect();
    if reasons.is_empty() {
        return Ok(());
    }
    Err(RoleError::CouldBypass { url_key, role: powers.role.clone(), reasons: reasons.join(", "), advice })
}
