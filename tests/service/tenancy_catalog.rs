//! Rules of tenant isolation, checked against `pg_catalog` for every table, so that new migrations must obey
//! them.

use crate::harness::{Service, service_test};

/// All tables and partitions, except the list of migrations and the tables of the system. The service's role
/// must have no access to the latter, which a separate rule checks.
const TABLES: &str = "
    SELECT c.oid, c.relname, c.relrowsecurity, c.relforcerowsecurity, c.relispartition, c.relkind
    FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
      AND c.relname NOT IN ('__diesel_schema_migrations', 'installations', 'replications', 'restore_windows', 'schedules', 'scrubs', 'storage_breakers', 'store_beats', 'sweeps')";

/// Returns the names of the objects that break a rule.
async fn find_violations(s: &Service, sql: &str) -> Vec<String> {
    s.superuser.query_texts(&format!("WITH tables AS ({TABLES}) {sql}")).await
}

/// The rules, each with a query that returns the tables, keys or roles that break it.
const RULES: [(&str, &str); 12] = [
    (
        "every table except `tenants` has a tenant_id",
        "SELECT relname::text FROM tables WHERE relname <> 'tenants' AND NOT EXISTS (
            SELECT FROM pg_attribute a WHERE a.attrelid = oid AND a.attname = 'tenant_id' AND a.attnotnull)",
    ),
    (
        "row-level security is enabled and forced",
        "SELECT relname::text FROM tables WHERE NOT (relrowsecurity AND relforcerowsecurity)",
    ),
    (
        "a restrictive policy limits the service's role to its tenant, for reads and writes",
        "SELECT relname::text FROM tables WHERE NOT EXISTS (
            SELECT FROM pg_policy p WHERE p.polrelid = tables.oid AND NOT p.polpermissive AND p.polcmd = '*'
              AND 'strongroom_app'::regrole = ANY (p.polroles)
              AND pg_get_expr(p.polqual, p.polrelid) ~ 'app\\.tenant_id\\(\\)'
              AND pg_get_expr(p.polwithcheck, p.polrelid) ~ 'app\\.tenant_id\\(\\)')",
    ),
    (
        "no policy applies to PUBLIC",
        "SELECT format('%s.%s', relname, p.polname) FROM tables JOIN pg_policy p ON p.polrelid = tables.oid
         WHERE 0 = ANY (p.polroles)",
    ),
    (
        "every primary and unique key starts with the tenant",
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
        "every foreign key includes the tenant",
        "SELECT format('%s: %s', relname, k.conname) FROM tables JOIN pg_constraint k ON k.conrelid = tables.oid
         WHERE k.contype = 'f' AND NOT EXISTS (
            SELECT FROM pg_attribute a JOIN pg_attribute b ON b.attrelid = k.confrelid AND b.attnum = k.confkey[1]
            WHERE a.attrelid = k.conrelid AND a.attnum = k.conkey[1] AND a.attname = 'tenant_id'
              AND (b.attname = 'tenant_id' OR (b.attname = 'id' AND k.confrelid = 'public.tenants'::regclass)))",
    ),
    (
        "the roles of the service own nothing and cannot bypass row-level security",
        "SELECT r.rolname::text FROM pg_roles r
         WHERE pg_has_role(r.oid, 'strongroom_app', 'MEMBER') AND NOT r.rolsuper AND (
            r.rolbypassrls OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication
            OR pg_has_role(r.oid, 'strongroom_migrate', 'MEMBER') OR pg_has_role(r.oid, 'strongroom_system', 'MEMBER')
            OR EXISTS (SELECT FROM pg_class c WHERE c.relowner = r.oid AND c.relnamespace = 'public'::regnamespace))",
    ),
    (
        "the service's role cannot truncate tables or change the schema",
        "SELECT relname::text FROM tables WHERE has_table_privilege('strongroom_app', oid, 'TRUNCATE, TRIGGER, REFERENCES')
         UNION ALL SELECT nspname::text FROM pg_namespace
         WHERE nspname IN ('public', 'app') AND has_schema_privilege('strongroom_app', oid, 'CREATE')",
    ),
    (
        "the service's role cannot update or delete append-only rows",
        "SELECT relname::text FROM tables
         WHERE (relname ~ '^(access_log|audit_entries|events|idempotency_keys)'
                OR relname IN ('credit_entries', 'storage_charges', 'tombstones'))
           AND has_table_privilege('strongroom_app', oid, 'UPDATE, DELETE')",
    ),
    (
        "system tables have row-level security and no access for the service's role",
        "SELECT c.relname::text FROM pg_class c WHERE c.relname IN ('installations', 'replications', 'restore_windows', 'schedules', 'scrubs', 'storage_breakers', 'store_beats', 'sweeps') AND (
            NOT (c.relrowsecurity AND c.relforcerowsecurity)
            OR has_table_privilege('strongroom_app', c.oid, 'SELECT, INSERT, UPDATE, DELETE')
            OR EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND 'strongroom_app'::regrole = ANY (p.polroles)))",
    ),
    (
        "SECURITY DEFINER functions have a fixed search path and are not executable by the service's role",
        "SELECT p.proname::text FROM pg_proc p
         WHERE p.pronamespace IN ('app'::regnamespace, 'public'::regnamespace) AND p.prosecdef
           AND (NOT coalesce(array_to_string(p.proconfig, ',') ~ 'search_path=', false)
                OR has_function_privilege('strongroom_app', p.oid, 'EXECUTE'))",
    ),
];

#[test]
fn every_table_obeys_tenancy_rules() {
    service_test(|s| async move {
        let tables = s.superuser.query_number(&format!("SELECT count(*) FROM ({TABLES}) AS tables")).await;
        assert!(tables >= 15, "{tables} tables");
        for (rule, sql) in RULES {
            assert_eq!(find_violations(&s, sql).await, [""; 0], "{rule}");
        }
    });
}

#[test]
fn new_partitions_obey_tenancy_rules() {
    service_test(|s| async move {
        s.clock.advance(chrono::Duration::days(100));
        strongroom::worker::run_round(&s.app).await;
        let partitions = find_violations(&s, "SELECT relname::text FROM tables WHERE relispartition").await;
        assert!(partitions.len() > 10, "{partitions:?}");
        for (rule, sql) in RULES {
            assert_eq!(find_violations(&s, sql).await, [""; 0], "{rule}");
        }
    });
}

#[test]
fn each_rule_detects_a_violation() {
    service_test(|s| async move {
        let violations: [(usize, &str); 11] = [
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
            (9, "GRANT UPDATE ON credit_entries TO strongroom_app"),
            (9, "GRANT UPDATE ON storage_charges TO strongroom_app"),
            (10, "GRANT SELECT ON sweeps TO strongroom_app"),
        ];
        for (rule, sql) in violations {
            let prepare =
                "CREATE TABLE IF NOT EXISTS broken (id uuid, tenant_id uuid, UNIQUE (id, tenant_id))";
            s.superuser.execute(&format!("BEGIN; {}", if rule == 6 { prepare } else { "" })).await;
            s.superuser.execute(sql).await;
            assert_ne!(find_violations(&s, RULES[rule].1).await, [""; 0], "{}", RULES[rule].0);
            s.superuser.execute("ROLLBACK").await;
        }
    });
}
