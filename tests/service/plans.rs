//! Lists read a bounded number of rows per returned row, for every kind of caller, order and page. PostgreSQL
//! counts the rows, in tables of 100,000 files per tenant.

use std::collections::BTreeMap;

use strongroom::{
    config::Config,
    db::{
        Database, Viewer,
        lists::{self, PageQuery, RecordColumns},
    },
    domain::{
        caller::{Actor, ActorKind, Caller, Origin, Role, Tenant, TenantKind, TenantState},
        file::Visibility,
        file_list::{FileFilter, FileOrder, PagePosition},
        ids::TenantId,
        policy::Policy,
        rate_limits::RequestLimits,
    },
};

use crate::{
    harness::{Service, database_options, service_test},
    list::ORDERS,
    queue_plans::publish_rows_read,
};

const PAGE: usize = 100;
const ROWS_READ_PER_ROW_MAX: i64 = 20;

/// SQL that inserts 100,000 files with the given visibility for a tenant, ten of which are shared with the
/// group `7a`.
fn insert_files_sql(tenant: TenantId, visibility: Visibility) -> String {
    let visibility = visibility.number();
    format!(
        "INSERT INTO files (tenant_id, id, owner_id, created_by, updated_by, name, original_name, category, title,
            description, metadata, visibility, version, content_state, scan_status, mime_type, declared_mime_type,
            media_kind, size_bytes, sha256, create_time, update_time)
         SELECT '{tenant}', gen_random_uuid(), 'owner' || n % 50, 'owner', 'owner', md5(n::text), 'n', 'media_resource',
            '', '', '{{}}', {visibility}, 1, {{content_state.available}},
                {{scan_status.not_scanned}}, 'text/plain',
            'text/plain', {{media_kind.other}}, (n * 7919) % 100003,
            sha256(n::text::bytea), now() - n * interval '1 second', now()
         FROM generate_series(1, 100000) AS n;
         INSERT INTO file_readers (tenant_id, principal, file_id, create_time, name, size_bytes)
         SELECT tenant_id, 'group:7a', id, create_time, name, size_bytes FROM files
         WHERE tenant_id = '{tenant}' ORDER BY name LIMIT 10;"
    )
}

fn viewer(tenant: TenantId, role: Role) -> Viewer {
    Viewer::from_caller(&Caller {
        tenant: std::sync::Arc::new(Tenant {
            id: tenant,
            kind: TenantKind::Organization,
            state: TenantState::Active,
            is_read_only: false,
            rate_limits: RequestLimits::default(),
            policy: Policy::preset("general").unwrap(),
        }),
        actor: Actor { kind: ActorKind::User, id: "someone".to_owned() },
        role,
        groups: vec!["7a".to_owned()],
        scopes: Vec::new(),
        origin: Origin::default(),
        first_call: None,
    })
}

/// Reads a page on a new connection. Returns the number of files, the next position, and the number of rows
/// that PostgreSQL read.
async fn read_page_measured(
    s: &Service,
    tenant: TenantId,
    viewer: &Viewer,
    filter: &FileFilter,
    order: FileOrder,
    after: Option<&PagePosition>,
) -> (usize, Option<PagePosition>, i64) {
    const ROWS_READ: &str = "SELECT (SELECT sum(seq_tup_read) FROM pg_stat_user_tables)
        + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes)";
    let connections = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
        AND usename = 'strongroom_test_app'";
    let before = s.superuser.query_number(ROWS_READ).await;
    let others = s.superuser.query_number(connections).await;
    let mut options = database_options(&Config::defaults().unwrap(), &s.database);
    options.pool_size_max = 1;
    let db = Database::open(&options).unwrap();
    let mut tx = db.tenant_tx(tenant, viewer).await.unwrap();
    let query = PageQuery { filter, order, after, size: PAGE, scan_rows_per_row_max: 20 };
    let (count, next) = if query.looks_at_more_rows(viewer) {
        let keys = lists::read_keys(&mut tx, viewer, &query).await.unwrap();
        (keys.files.len(), keys.next)
    } else {
        let page = lists::read_page(&mut tx, viewer, &query, RecordColumns::Basic).await.unwrap();
        (page.files.len(), page.next)
    };
    tx.commit().await.unwrap();
    // PostgreSQL publishes the statistics of a connection when it closes.
    drop(db);
    s.wait_until("the connection is closed", || async {
        s.superuser.query_number(connections).await == others
    })
    .await;
    (count, next, s.superuser.query_number(ROWS_READ).await - before)
}

#[test]
fn list_reads_few_rows_per_returned_row() {
    service_test(|s| async move {
        let open: TenantId = s.alice().tenant_id().await.parse().unwrap();
        let closed: TenantId = s.mallory().tenant_id().await.parse().unwrap();
        s.superuser.execute(&insert_files_sql(open, Visibility::Organization)).await;
        s.superuser.execute(&insert_files_sql(closed, Visibility::Owner)).await;
        s.superuser.execute("ANALYZE").await;
        publish_rows_read(&s).await;

        let viewers = [
            ("an admin", closed, viewer(closed, Role::Admin), PAGE),
            ("a manager who sees ten files", closed, viewer(closed, Role::Manager), 10),
            ("a member who sees all files", open, viewer(open, Role::Member), PAGE),
            ("a member who sees ten files", closed, viewer(closed, Role::Member), 10),
        ];
        let owned = FileFilter { owner_id: Some("owner7".to_owned()), ..FileFilter::default() };
        let trash = FileFilter { is_deleted_shown: true, ..FileFilter::default() };
        let rare = FileFilter { category: Some("report".to_owned()), ..FileFilter::default() };
        let mut findings = BTreeMap::new();
        for (name, tenant, viewer, expected) in &viewers {
            for order in ORDERS {
                let parsed = FileOrder::parse(order).unwrap();
                let mut check = |case: &str, rows: usize, rows_read: i64, rows_max: i64| {
                    if rows_read > ROWS_READ_PER_ROW_MAX * rows_max || rows_read == 0 {
                        findings.insert(format!("{name}, {order}, {case}"), (rows, rows_read));
                    }
                };
                let everything = FileFilter::default();
                let (rows, next, rows_read) =
                    read_page_measured(&s, *tenant, viewer, &everything, parsed, None).await;
                assert_eq!(rows, *expected, "{name}, {order}");
                check("first page", rows, rows_read, rows as i64);
                if let Some(next) = next {
                    let (rows, _, rows_read) =
                        read_page_measured(&s, *tenant, viewer, &everything, parsed, Some(&next)).await;
                    check("next page", rows, rows_read, rows as i64);
                }
                let (rows, _, rows_read) =
                    read_page_measured(&s, *tenant, viewer, &trash, parsed, None).await;
                check("with trash", rows, rows_read, rows as i64);
                // For selective filters the bound depends on the page size, not on the rows returned.
                for (case, filter) in [("owner filter", &owned), ("filter on a rare category", &rare)] {
                    let (rows, _, rows_read) =
                        read_page_measured(&s, *tenant, viewer, filter, parsed, None).await;
                    check(case, rows, rows_read, 4 * PAGE as i64);
                }
            }
        }
        assert!(findings.is_empty(), "rows returned and rows read: {findings:#?}");
        // The quota does not include these files, because they were not uploaded; the invariants would fail.
        s.superuser
            .execute("TRUNCATE file_readers, file_tags, file_grants, share_grants, attachments, download_counts, versions, shares, files")
            .await;
    });
}
