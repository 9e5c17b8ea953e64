//! A list touches a bounded number of rows per row it returns (invariant 15), whoever asks and in whatever order, also
//! deep inside: counted by PostgreSQL itself over a hundred thousand files.

use std::collections::BTreeMap;

use strongroom::{
    config::Config,
    db::{
        Database, Viewer,
        lists::{self, PageQuery},
    },
    domain::{
        caller::{Actor, ActorKind, Caller, Origin, Role, Tenant, TenantKind, TenantState},
        file_list::{FileFilter, FileOrder, PagePosition},
        ids::TenantId,
        policy::Policy,
    },
};

use crate::{
    harness::{Service, database_options, service_test},
    list::ORDERS,
};

const PAGE: usize = 100;
const TOUCHED_PER_ROW_MAX: i64 = 20;

/// A hundred thousand files of one tenant, each visible to this audience; ten of them are granted to a class.
fn many_files(tenant: TenantId, visibility: i16) -> String {
    format!(
        "INSERT INTO files (tenant_id, id, owner_id, created_by, updated_by, name, original_name, category, title,
            description, metadata, visibility, version, content_state, scan_status, mime_type, declared_mime_type,
            media_kind, size_bytes, sha256, create_time, update_time)
         SELECT '{tenant}', gen_random_uuid(), 'owner' || n % 50, 'owner', 'owner', md5(n::text), 'n', 'media_resource',
            '', '', '{{}}', {visibility}, 1, 2, 1, 'text/plain', 'text/plain', 5, (n * 7919) % 100003,
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
            policy: Policy::preset("general").unwrap(),
        }),
        actor: Actor { kind: ActorKind::User, id: "someone".to_owned() },
        role,
        groups: vec!["7a".to_owned()],
        origin: Origin::default(),
    })
}

/// Reads a page on a connection of its own; answers the rows, where to go on, and how many rows PostgreSQL touched.
async fn measured(
    s: &Service,
    tenant: TenantId,
    viewer: &Viewer,
    filter: &FileFilter,
    order: FileOrder,
    after: Option<&PagePosition>,
) -> (usize, Option<PagePosition>, i64) {
    const TOUCHED: &str = "SELECT (SELECT sum(seq_tup_read) FROM pg_stat_user_tables)
        + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes)";
    let connections = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
        AND usename = 'strongroom_test_app'";
    let before = s.owner.number(TOUCHED).await;
    let others = s.owner.number(connections).await;
    let mut options = database_options(&Config::defaults().unwrap(), &s.database);
    options.pool_size_max = 1;
    let db = Database::open(&options).unwrap();
    let mut tx = db.tenant_tx(tenant, viewer).await.unwrap();
    let query = PageQuery { filter, order, after, size: PAGE, scan_rows_per_row_max: 20 };
    let page = lists::read_page(&mut tx, viewer, &query).await.unwrap();
    tx.commit().await.unwrap();
    // A connection that ends tells what it did.
    drop(db);
    s.until("the connection ends", || async { s.owner.number(connections).await == others }).await;
    (page.files.len(), page.next, s.owner.number(TOUCHED).await - before)
}

#[test]
fn a_page_never_touches_more_than_a_few_rows_for_each_that_it_returns() {
    service_test(|s| async move {
        let open: TenantId = s.alice().tenant_id().await.parse().unwrap();
        let closed: TenantId = s.mallory().tenant_id().await.parse().unwrap();
        s.owner.run(&many_files(open, 3)).await;
        s.owner.run(&many_files(closed, 1)).await;
        s.owner.run("ANALYZE").await;

        let viewers = [
            ("an admin", closed, viewer(closed, Role::Admin), PAGE),
            ("a manager who sees ten", closed, viewer(closed, Role::Manager), 10),
            ("a member who sees everything", open, viewer(open, Role::Member), PAGE),
            ("a member who sees ten", closed, viewer(closed, Role::Member), 10),
        ];
        let owned = FileFilter { owner_id: Some("owner7".to_owned()), ..FileFilter::default() };
        let trash = FileFilter { is_deleted_shown: true, ..FileFilter::default() };
        let rare = FileFilter { category: Some("report".to_owned()), ..FileFilter::default() };
        let mut findings = BTreeMap::new();
        for (who, tenant, viewer, seen) in &viewers {
            for order in ORDERS {
                let parsed = FileOrder::parse(order).unwrap();
                let mut check = |what: &str, rows: usize, touched: i64, rows_max: i64| {
                    if touched > TOUCHED_PER_ROW_MAX * rows_max || touched == 0 {
                        findings.insert(format!("{who}, {order}, {what}"), (rows, touched));
                    }
                };
                let everything = FileFilter::default();
                let (rows, next, touched) = measured(&s, *tenant, viewer, &everything, parsed, None).await;
                assert_eq!(rows, *seen, "{who}, {order}");
                check("first page", rows, touched, rows as i64);
                if let Some(next) = next {
                    let (rows, _, touched) =
                        measured(&s, *tenant, viewer, &everything, parsed, Some(&next)).await;
                    check("next page", rows, touched, rows as i64);
                }
                let (rows, _, touched) = measured(&s, *tenant, viewer, &trash, parsed, None).await;
                check("with trash", rows, touched, rows as i64);
                // What filters away most rows is bounded by the page that was asked for.
                for (what, filter) in [("of one owner", &owned), ("of a rare category", &rare)] {
                    let (rows, _, touched) = measured(&s, *tenant, viewer, filter, parsed, None).await;
                    check(what, rows, touched, 4 * PAGE as i64);
                }
            }
        }
        assert!(findings.is_empty(), "rows returned and touched: {findings:#?}");
        // The files were not uploaded, so the books do not know them.
        s.owner.run("TRUNCATE file_readers, file_tags, attachments, download_counts, versions, files").await;
    });
}
