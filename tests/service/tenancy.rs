//! Isolation of tenants: by id, on raw database connections, and through database roles.

use strongroom::{
    db::{Database, RoleError},
    proto::v1::{GetQuotaRequest, ListFilesRequest, Quota},
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::harness::{Caller, file_id, service_test, service_test_with, spec};

const RANDOM: &str = "0198c0de-7777-7000-8000-00000000abcd";

/// Returns the parts of an error that must not differ between calls: all but the request id.
fn comparable_parts(status: &Status) -> (Code, String, String, usize) {
    let mut details = status.get_error_details();
    if let Some(info) = details.error_info() {
        let mut metadata = info.metadata.clone();
        metadata.remove("call_id");
        details.set_error_info(info.reason.clone(), info.domain.clone(), metadata);
    }
    (status.code(), status.message().to_owned(), format!("{details:?}"), status.details().len())
}

/// Calls the methods that take the id of a file, which must all fail.
async fn call_file_methods_refused(caller: &Caller, id: &str) -> Vec<Status> {
    vec![
        caller.get(id).await.unwrap_err(),
        caller.read(id).await.unwrap_err(),
        caller.delete(id).await.unwrap_err(),
        caller.undelete(id).await.unwrap_err(),
        caller.purge(id).await.unwrap_err(),
    ]
}

#[test]
fn foreign_and_random_ids_return_same_error() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = file_id(&alice.upload(spec("secret"), b"bytes").await.unwrap());
        let trashed = file_id(&alice.upload(spec("trashed"), b"bytes").await.unwrap());
        alice.delete(&trashed).await.unwrap();
        for stranger in [s.mallory(), s.gus(), s.head(), s.personal_alice()] {
            let random = call_file_methods_refused(&stranger, RANDOM).await;
            for id in [&id, &trashed] {
                for (foreign, random) in call_file_methods_refused(&stranger, id).await.iter().zip(&random) {
                    assert_eq!(foreign.code(), Code::NotFound);
                    assert_eq!(comparable_parts(foreign), comparable_parts(random));
                }
            }
            assert!(stranger.list(ListFilesRequest::default()).await.unwrap().files.is_empty());
        }
        let (acme, gus) = (alice.tenant_id().await, s.gus());
        let request = |tenant_id: &str| GetQuotaRequest { tenant_id: tenant_id.to_owned() };
        let foreign = gus.quotas.clone().get_quota(request(&acme)).await.unwrap_err();
        let random = gus.quotas.clone().get_quota(request(RANDOM)).await.unwrap_err();
        assert_eq!(comparable_parts(&foreign), comparable_parts(&random));
        let quota = Quota { limit_bytes: 1, ..Quota::default() };
        let foreign = gus.update_quota(&acme, quota.clone(), &["limit_bytes"]).await.unwrap_err();
        let random = gus.update_quota(RANDOM, quota, &["limit_bytes"]).await.unwrap_err();
        assert_eq!((foreign.code(), comparable_parts(&foreign)), (Code::NotFound, comparable_parts(&random)));
    });
}

#[test]
fn personal_and_organization_tenants_are_separate() {
    service_test(|s| async move {
        let (alice, personal) = (s.alice(), s.personal_alice());
        let at_work = file_id(&alice.upload(spec("at work"), b"x").await.unwrap());
        let at_home = file_id(&personal.upload(spec("at home"), b"x").await.unwrap());
        assert_ne!(alice.tenant_id().await, personal.tenant_id().await);
        assert_eq!(alice.list_names(ListFilesRequest::default()).await, ["at work"]);
        assert_eq!(personal.list_names(ListFilesRequest::default()).await, ["at home"]);
        assert_eq!(alice.get(&at_home).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(personal.get(&at_work).await.unwrap_err().code(), Code::NotFound);
        // A person is the admin of their personal tenant.
        personal.set_limit_bytes(1000).await;
    });
}

#[test]
fn organization_named_like_a_person_is_another_tenant() {
    service_test(|s| async move {
        let personal = s.personal_alice();
        let mut identity = s.ada().identity;
        identity.organization = Some("alice".to_owned());
        let organization = s.caller(identity);
        assert_ne!(personal.tenant_id().await, organization.tenant_id().await);
        let kinds = s
            .superuser
            .query_texts("SELECT format('%s %s', kind, external_id) FROM tenants ORDER BY kind")
            .await;
        assert_eq!(kinds, ["1 alice", "2 alice"]);
    });
}

#[test]
fn concurrent_first_calls_create_one_tenant() {
    service_test(|s| async move {
        let calls = (0..30).map(|_| async { s.alice().quota().await.unwrap().tenant_id });
        let mut ids = futures::future::join_all(calls).await;
        ids.dedup();
        assert_eq!(ids.len(), 1);
        assert_eq!(s.superuser.query_number("SELECT count(*) FROM tenants").await, 1);
        assert_eq!(
            s.superuser
                .query_number(
                    "SELECT count(*) FROM audit_entries WHERE action = {audit_action.tenant_create}"
                )
                .await,
            1
        );
    });
}

#[test]
fn unknown_tenant_is_denied_if_creation_is_manual() {
    service_test_with(
        |config| config.tenants.create_on_first_use = false,
        |s| async move {
            let error = s.alice().quota().await.unwrap_err();
            assert_eq!(error.code(), Code::PermissionDenied);
            assert_eq!(s.superuser.query_number("SELECT count(*) FROM tenants").await, 0);
        },
    );
}

#[test]
fn operator_cannot_access_files() {
    service_test(|s| async move {
        let id = file_id(&s.alice().upload(spec("secret"), b"bytes").await.unwrap());
        let operator = s.operator();
        for error in call_file_methods_refused(&operator, &id).await {
            assert_eq!(error.code(), Code::PermissionDenied);
        }
        assert_eq!(
            operator.list(ListFilesRequest::default()).await.unwrap_err().code(),
            Code::PermissionDenied
        );
        assert_eq!(operator.upload(spec("a"), b"x").await.unwrap_err().code(), Code::PermissionDenied);
    });
}

/// Returns the tables in which a connection of the service's role sees rows.
async fn visible_tables(client: &tokio_postgres::Client, tables: &[String]) -> Vec<String> {
    let mut visible = Vec::new();
    for table in tables {
        let count: i64 =
            client.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.unwrap().get(0);
        if count > 0 {
            visible.push(table.clone());
        }
    }
    visible
}

#[test]
fn row_level_security_shows_only_one_tenant() {
    service_test(|s| async move {
        let (alice, mallory) = (s.alice(), s.mallory());
        let id = file_id(&alice.upload(spec("secret"), b"bytes").await.unwrap());
        let gone = file_id(&alice.upload(spec("gone"), b"bytes").await.unwrap());
        alice.purge(&gone).await.unwrap();
        let (acme, globex) = (alice.tenant_id().await, mallory.tenant_id().await);
        let tables = s
            .superuser
            .query_texts(
                "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace
                    AND relkind IN ('r', 'p') AND relname <> '__diesel_schema_migrations'
                    AND relname NOT IN ('installations', 'replications', 'schedules', 'scrubs', 'storage_breakers', 'store_beats', 'sweeps') -- to which the service's role has no access",
            )
            .await;
        let client = s.database.connect_as_app().await;
        assert_eq!(visible_tables(&client, &tables).await, [""; 0], "nothing is visible without a context");

        let begin_as = |tenant: &str| {
            format!(
                "BEGIN; SELECT set_config('app.tenant_id', '{tenant}', true), set_config('app.audience_min', '1', true)"
            )
        };
        client.batch_execute(&begin_as(&globex)).await.unwrap();
        let of_globex = visible_tables(&client, &tables).await;
        assert!(of_globex.contains(&"quotas".to_owned()) && !of_globex.contains(&"files".to_owned()));
        for table in &of_globex {
            let column = if table == "tenants" { "id" } else { "tenant_id" };
            let foreign = format!("SELECT count(*) FROM {table} WHERE {column}::text <> '{globex}'");
            assert_eq!(client.query_one(&foreign, &[]).await.unwrap().get::<_, i64>(0), 0, "{table}");
        }
        // Invisible rows cannot be changed, and no row can be inserted for another tenant.
        for sql in [
            "UPDATE files SET name = 'x'",
            "DELETE FROM files",
            "UPDATE quotas SET limit_bytes = 1 WHERE tenant_id::text <> current_setting('app.tenant_id')",
        ] {
            assert_eq!(client.execute(sql, &[]).await.unwrap(), 0, "{sql}");
        }
        let foreign_insert =
            format!("INSERT INTO file_tags (tenant_id, file_id, tag) VALUES ('{acme}', '{id}', 'x')");
        assert!(client.batch_execute(&foreign_insert).await.is_err());
        client.batch_execute("ROLLBACK").await.unwrap();

        // The context ends with its transaction, although the connection then has the settings as ''.
        assert_eq!(visible_tables(&client, &tables).await, [""; 0]);
        client.batch_execute(&begin_as(&acme)).await.unwrap();
        let of_acme = visible_tables(&client, &tables).await;
        for table in
            ["files", "versions", "blobs", "tombstones", "audit_entries", "events", "quotas", "tenants"]
        {
            assert!(of_acme.contains(&table.to_owned()), "{table}");
        }
        let foreign =
            format!("INSERT INTO file_tags (tenant_id, file_id, tag) VALUES ('{globex}', '{id}', 'x')");
        assert!(client.batch_execute(&foreign).await.is_err());
    });
}

#[test]
fn service_refuses_roles_that_bypass_isolation() {
    service_test(|s| async move {
        let superuser = s.database.superuser_url();
        let check = |url: secrecy::SecretString, system_url: secrecy::SecretString| {
            let config = strongroom::config::Config::defaults().unwrap();
            let mut options = crate::harness::database_options(&config, &s.database);
            (options.url, options.system_url) = (url, system_url);
            async move { Database::open(&options).unwrap().check_roles().await }
        };
        let (app, system) = (s.database.app_url(), s.database.system_url());
        check(app.clone(), system.clone()).await.unwrap();

        let owner = s.database.create_login("strongroom_test_owner", "strongroom_migrate").await;
        let backup = s.database.create_login("strongroom_test_backup", "strongroom_backup").await;
        let nobody = s.database.create_login("strongroom_test_nobody", "pg_monitor").await;
        for (url, system_url, expected) in [
            (superuser.clone(), system.clone(), "superuser"),
            (system.clone(), system.clone(), "strongroom_system"),
            (owner.clone(), system.clone(), "owns tables"),
            (backup, system.clone(), "strongroom_backup"),
            (app.clone(), superuser, "superuser"),
            (app.clone(), owner, "owns tables"),
        ] {
            let error = check(url, system_url).await.unwrap_err();
            let text = error.to_string();
            assert!(matches!(error, RoleError::CouldBypass { .. }), "{text}");
            assert!(text.contains(expected) && text.contains("refusing to start"), "{text}");
        }
        for (url, system_url) in [(nobody.clone(), system), (app.clone(), nobody), (app.clone(), app)] {
            let error = check(url, system_url).await.unwrap_err();
            assert!(matches!(error, RoleError::NotAMember { .. }), "{error}");
        }
    });
}
