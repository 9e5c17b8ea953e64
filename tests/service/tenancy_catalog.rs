//! The walls as `pg_catalog` knows them: whatever migrations may bring, these hold for every table.

use crate::harness::{Service, service_test};

/// Every table of ours, partitions too. The migrations' own list is no table of tenants, and nor is what belongs to the
/// system alone; a rule of its own keeps the service's role out of that.
const TABLES: &str = "
    SELECT c.oid, c.relname, c.relrowsecurity, c.relforcerowsecurity, c.relispartition, c.relkind
    FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
      AND c.relname NOT IN ('__diesel_schema_migrations', 'sweeps', 'schedules')";

/// Answers names that should not be there.
async fn offenders(s: &Service, sql: &str) -> Vec<String> {
    s.owner.texts(&format!("WITH tables AS ({TABLES}) {sql}")).await
}

/// Each with what it finds: a table, a key, a role that breaks a rule.
const RULES: [(&str, &str); 12] = [
    (
        "every table has a tenant_id, or is the directory of tenants",
        "SELECT relname::text FROM tables WHERE relname <> 'tenants' AND NOT EXISTS (
            SELECT FROM pg_attribute a WHERE a.attrelid = oid AND a.attname = 'tenant_id' AND a.attnotnull)",
    ),
    (
        "row-level security is enabled and forced",
        "SELECT relname::text FROM tables WHERE NOT (relrowsecurity AND relforcerowsecurity)",
    ),
    (
        "a restrictive policy binds the service's role to its tenant, for reading and writing",
        "SELECT relname::text FROM tables WHERE NOT EXISTS (
            SELECT FROM pg_policy p WHERE p.polrelid = tables.oid AND NOT p.polpermissive AND p.polcmd = '*'
              AND 'strongroom_app'::regrole = ANY (p.polroles)
              AND pg_get_expr(p.polqual, p.polrelid) ~ 'app\\.tenant_id\\(\\)'
              AND pg_get_expr(p.polwithcheck, p.polrelid) ~ 'app\\.tenant_id\\(\\)')",
    ),
    (
        "no policy is for everyone",
        "SELECT format('%s.%s', relname, p.polname) FROM tables JOIN pg_policy p ON p.polrelid = tables.oid
         WHERE 0 = ANY (p.polroles)",
    ),
    (
        "every primary and unique key begins with the tenant",
        "SELECT format('%s: %s', relname, i.indexrelid::regclass) FROM tables JOIN pg_index i ON i.indrelid = tables.oid
         WHERE i.indisunique AND relname <> 'tenants' AND (
            SELECT a.attname FROM pg_attribute a WHERE a.attrelid = i.indrelid AND a.attnum = i.indkey[0]) <> 'tenant_id'",
    ),
    (
        "every table has a primary key",
        "SELECT relname::text FROM tables WHERE NOT EXISTS (
            SELECT FROM pg_index i WHERE i.indrelid = tables.oid AND i.indisprimary)",
    ),
    (
        "every foreign key carries the tenant along",
        "SELECT format('%s: %s', relname, k.conname) FROM tables JOIN pg_constraint k ON k.conrelid = tables.oid
         WHERE k.contype = 'f' AND NOT EXISTS (
            SELECT FROM pg_attribute a JOIN pg_attribute b ON b.attrelid = k.confrelid AND b.attnum = k.confkey[1]
            WHERE a.attrelid = k.conrelid AND a.attnum = k.conkey[1] AND a.attname = 'tenant_id'
              AND (b.attname = 'tenant_id' OR (b.attname = 'id' AND k.confrelid = 'public.tenants'::regclass)))",
    ),
    (
        "the roles that serve own nothing and can bypass nothing",
        "SELECT r.rolname::text FROM pg_roles r
         WHERE pg_has_role(r.oid, 'strongroom_app', 'MEMBER') AND NOT r.rolsuper AND (
            r.rolbypassrls OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication
            OR pg_has_role(r.oid, 'strongroom_migrate', 'MEMBER') OR pg_has_role(r.oid, 'strongroom_system', 'MEMBER')
            OR EXISTS (SELECT FROM pg_class c WHERE c.relowner = r.oid AND c.relnamespace = 'public'::regnamespace))",
    ),
    (
        "the service's role can empty no table and change no schema",
        "SELECT relname::text FROM tables WHERE has_table_privilege('strongroom_app', oid, 'TRUNCATE, TRIGGER, REFERENCES')
         UNION ALL SELECT nspname::text FROM pg_namespace
         WHERE nspname IN ('public', 'app') AND has_schema_privilege('strongroom_app', oid, 'CREATE')",
    ),
    (
        "what is written for good is never changed or deleted by the service's role",
        "SELECT relname::text FROM tables
         WHERE (relname ~ '^(audit_entries|events|idempotency_keys)' OR relname = 'tombstones')
           AND has_table_privilege('strongroom_app', oid, 'UPDATE, DELETE')",
    ),
    (
        "what belongs to the system alone is under row-level security, and the service's role has no part in it",
        "SELECT c.relname::text FROM pg_class c WHERE c.relname IN ('sweeps', 'schedules') AND (
            NOT (c.relrowsecurity AND c.relforcerowsecurity)
            OR has_table_privilege('strongroom_app', c.oid, 'SELECT, INSERT, UPDATE, DELETE')
            OR EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND 'strongroom_app'::regrole = ANY (p.polroles)))",
    ),
    (
        "functions that run as their owner have a fixed search path and are not for everyone",
        "SELECT p.proname::text FROM pg_proc p
         WHERE p.pronamespace IN ('app'::regnamespace, 'public'::regnamespace) AND p.prosecdef
           AND (NOT coalesce(array_to_string(p.proconfig, ',') ~ 'search_path=', false)
                OR has_function_privilege('strongroom_app', p.oid, 'EXECUTE'))",
    ),
];

#[test]
fn every_table_keeps_to_the_rules_of_tenancy() {
    service_test(|s| async move {
        let tables = s.owner.number(&format!("SELECT count(*) FROM ({TABLES}) AS tables")).await;
        assert!(tables >= 15, "{tables} tables");
        for (rule, sql) in RULES {
            assert_eq!(offenders(&s, sql).await, [""; 0], "{rule}");
        }
    });
}

#[test]
fn partitions_that_come_later_keep_to_them_too() {
    service_test(|s| async move {
        s.clock.advance(chrono::Duration::days(100));
        strongroom::worker::run_round(&s.app).await;
        let partitions = offenders(&s, "SELECT relname::text FROM tables WHERE relispartition").await;
        assert!(partitions.len() > 10, "{partitions:?}");
        for (rule, sql) in RULES {
            assert_eq!(offenders(&s, sql).await, [""; 0], "{rule}");
        }
    });
}

/// A rule that finds nothing when it is broken is no rule.
#[test]
fn each_rule_finds_a_table_that_breaks_it() {
    service_test(|s| async move {
        let breaks: [(usize, &str); 9] = [
            (0, "CREATE TABLE broken (id int PRIMARY KEY)"),
            (1, "ALTER TABLE files NO FORCE ROW LEVEL SECURITY"),
            (2, "DROP POLICY tenant ON events_default"),
            (3, "CREATE POLICY open ON files USING (true)"),
            (4, "CREATE UNIQUE INDEX broken ON files (name)"),
            (
                6,
                "ALTER TABLE versions ADD FOREIGN KEY (file_id, tenant_id) REFERENCES broken (id, tenant_id)",
            ),
            (8, "GRANT TRUNCATE ON files TO strongroom_app"),
            (9, "GRANT DELETE ON audit_entries TO strongroom_app"),
            (10, "GRANT SELECT ON sweeps TO strongroom_app"),
        ];
        for (rule, sql) in breaks {
            let prepare =
                "CREATE TABLE IF NOT EXISTS broken (id uuid, tenant_id uuid, UNIQUE (id, tenant_id))";
            s.owner.run(&format!("BEGIN; {}", if rule == 6 { prepare } else { "" })).await;
            s.owner.run(sql).await;
            assert_ne!(offenders(&s, RULES[rule].1).await, [""; 0], "{}", RULES[rule].0);
            s.owner.run("ROLLBACK").await;
        }
    });
}
