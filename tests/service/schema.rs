//! The schema of the database: the check at startup, and the agreement of a commit's items with their type.

use strongroom::db::migrate;

use crate::harness::{Service, service_test, spec};

const REFUSAL: &str = "refusing to start: the schema of the database does not match this version: ";

async fn check_error(s: &Service) -> String {
    s.db.check_schema().await.unwrap_err().to_string()
}

async fn count_functions(s: &Service, name: &str) -> i64 {
    s.superuser.query_number(&format!("SELECT count(*) FROM pg_proc WHERE proname = '{name}'")).await
}

#[test]
fn changed_functions_are_refused_until_migration() {
    service_test(|s| async move {
        s.superuser.execute("DROP FUNCTION app.event_incarnation()").await;
        let other_body =
            "CREATE OR REPLACE FUNCTION app.lock_file_creation(tenant uuid, is_exclusive boolean)
            RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$ BEGIN END $$";
        s.superuser.execute(other_body).await;
        // The body of this one is not in the catalog as text, so only its mark shows its version.
        s.superuser.execute("COMMENT ON FUNCTION app.user_id() IS 'sha256 0'").await;
        let expected = format!(
            "{REFUSAL}function app.event_incarnation is missing, function app.lock_file_creation differs, \
             function app.user_id differs; run `strongroom migrate up`"
        );
        assert_eq!(check_error(&s).await, expected);

        let report = migrate::up(&s.database.superuser_url()).await.unwrap();
        assert!(report.applied.is_empty() && !report.is_database_newer, "{report:?}");
        s.db.check_schema().await.unwrap();
    });
}

#[test]
fn pending_migrations_are_refused() {
    service_test(|s| async move {
        let statuses = migrate::status(&s.database.superuser_url()).await.unwrap();
        let [.., before, newest] = statuses.as_slice() else { panic!("{statuses:?}") };
        let version = before.name.split('_').next().unwrap();
        s.superuser.execute(&format!("COMMENT ON SCHEMA app IS 'schema version {version}.1'")).await;
        let expected = format!("{REFUSAL}migration {} is pending; run `strongroom migrate up`", newest.name);
        assert_eq!(check_error(&s).await, expected);
        migrate::up(&s.database.superuser_url()).await.unwrap();
        s.db.check_schema().await.unwrap();
    });
}

#[test]
fn newer_schema_is_accepted_and_left_unchanged() {
    service_test(|s| async move {
        s.superuser.execute("DROP FUNCTION app.event_incarnation()").await;
        for newer in ["99991231235959.1", "20261130000100.4000000000"] {
            s.superuser.execute(&format!("COMMENT ON SCHEMA app IS 'schema version {newer}'")).await;
            s.db.check_schema().await.unwrap();
            assert!(migrate::up(&s.database.superuser_url()).await.unwrap().is_database_newer);
            assert_eq!(count_functions(&s, "event_incarnation").await, 0);
        }
        s.superuser.execute("COMMENT ON SCHEMA app IS NULL").await;
        assert!(!migrate::up(&s.database.superuser_url()).await.unwrap().is_database_newer);
        assert_eq!(count_functions(&s, "event_incarnation").await, 1);
    });
}

/// Selects the attributes of the type of a commit's items.
const ATTRIBUTES: &str = "
    SELECT attname::text FROM pg_attribute
    WHERE attrelid = 'app.finished_upload'::regclass AND attnum > 0 AND NOT attisdropped";

#[test]
fn items_of_commit_match_their_type() {
    service_test(|s| async move {
        // `jsonb_populate_recordset` ignores unknown keys and sets missing ones to null, so an item that does not
        // match is not an error. Record the items of a commit.
        s.superuser
            .execute(
                "CREATE TABLE recorded_items (items jsonb);
                 GRANT INSERT ON recorded_items TO strongroom_app;
                 DO $do$ BEGIN EXECUTE regexp_replace(
                     pg_get_functiondef('app.commit_uploads'::regproc), E'\\nBEGIN\\n',
                     E'\\nBEGIN\\n    INSERT INTO public.recorded_items SELECT items;\\n');
                 END $do$",
            )
            .await;
        // New files and new versions have different fields; together they have all.
        let file = s.alice().upload(spec("a.txt"), b"a").await.unwrap().file.unwrap();
        s.alice().upload_version(&file.id, b"b").await.unwrap();
        let keys = "SELECT key FROM recorded_items, jsonb_array_elements(items) AS item,
            jsonb_object_keys(item) AS key GROUP BY key ORDER BY key COLLATE \"C\"";
        let recorded = s.superuser.query_texts(keys).await;
        assert!(recorded.len() > 40, "{recorded:?}");
        let attributes = s.superuser.query_texts(&format!("{ATTRIBUTES} ORDER BY attname")).await;
        assert_eq!(recorded, attributes);
        s.superuser.execute("DROP TABLE recorded_items").await;
    });
}

#[test]
fn commit_uses_every_attribute_of_its_items() {
    service_test(|s| async move {
        let unused = format!(
            "{ATTRIBUTES} AND NOT EXISTS (
                SELECT FROM pg_proc WHERE pronamespace = 'app'::regnamespace AND prosrc ~ ('[.]' || attname || '\\M')
                  AND proname IN ('commit_uploads', 'check_new_versions', 'can_see_file', 'set_current_versions'))"
        );
        assert_eq!(s.superuser.query_texts(&unused).await, [""; 0]);
    });
}
