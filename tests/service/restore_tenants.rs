//! Tenants that were created in the lost hours. Their objects are kept, and come back when the restored database has the
//! rows of the tenants again.

use strongroom::domain::clock::Clock as _;

use crate::{
    harness::service_test,
    restore::{adopt, list_keys, list_recovered, readopt, restore_after, run_all_deletions, stop, upload},
    sweep::{new_key, put_object},
    tenants::new_tenant,
};

const RUNBOOK: &str = include_str!("../../docs/runbooks/restore-and-sweep.md");

/// Returns the query of the runbook for statements that insert the tenants that were created since a time.
fn lost_tenants_query(since: &str) -> String {
    let (_, after) = RUNBOOK.split_once("<<'SQL' >lost-tenants.sql\n").expect("the runbook has the query");
    let (query, _) = after.split_once("\n   SQL\n").expect("the query has an end");
    assert!(query.contains(":'since'"), "{query}");
    query.replace(":'since'", &format!("'{since}'")).trim_end().trim_end_matches(';').to_owned()
}

#[test]
fn lost_tenant_gets_its_files_back_with_its_rows() {
    service_test(|s| async move {
        upload(&s.alice(), "kept.txt", b"kept").await;
        let since = s.clock.now().to_rfc3339();
        let restored =
            restore_after(&s, async |s| drop(upload(&s.mallory(), "globex.txt", b"globex").await)).await;
        adopt(&restored).await;
        let report = readopt(&restored).await;
        assert_eq!((report.readopted.count, report.foreign_lost_hours.count), (0, 1), "{report:#?}");

        for statement in s.superuser.query_texts(&lost_tenants_query(&since)).await {
            restored.superuser.execute(&statement).await;
        }
        let report = readopt(&restored).await;
        assert_eq!((report.readopted.count, report.foreign_lost_hours.count), (1, 0), "{report:#?}");
        assert!(!report.has_findings(), "{report:#?}");
        let files = list_recovered(&restored.gus()).await;
        assert_eq!(restored.gus().read(&files["globex.txt"]).await.unwrap(), b"globex"[..]);
        let quota = restored.quota_row(&restored.gus()).await;
        assert_eq!((quota.used_bytes, quota.file_count, quota.reserved_bytes), (6, 1, 0));
        assert_eq!(restored.alice().quota().await.unwrap().used_bytes, 4, "other tenants are unchanged");
        let keys = list_keys(&s).await;
        run_all_deletions(&restored).await;
        assert_eq!(list_keys(&s).await, keys);
        assert_eq!(restored.run_fsck().await.violations, []);
        stop(restored).await;
    });
}

#[test]
fn objects_of_others_are_never_readopted() {
    service_test(|s| async move {
        s.allow_lost_objects();
        upload(&s.alice(), "kept.txt", b"kept").await;
        let restored = restore_after(&s, async |s| {
            let other = new_key(s, "live/other", None).await;
            put_object(s, &other).await;
            // The tenant of globex is created in the lost hours.
            upload(&s.mallory(), "globex.txt", b"globex").await;
        })
        .await;
        adopt(&restored).await;
        let report = readopt(&restored).await;
        let counts = (report.lost_hours.count, report.foreign, report.foreign_lost_hours.count);
        assert_eq!(counts, (0, 2, 1), "{report:#?}");
        // A new tenant with the same name has another id.
        restored.operator().create_tenant(new_tenant("globex")).await.unwrap();
        let report = readopt(&restored).await;
        let counts = (report.lost_hours.count, report.foreign, report.foreign_lost_hours.count);
        assert_eq!(counts, (0, 2, 1), "{report:#?}");
        run_all_deletions(&restored).await;
        assert_eq!(list_keys(&s).await.len(), 3, "no sweep deletes objects of others");
        let other = list_keys(&s).await.into_iter().find(|key| key.starts_with("live/other")).unwrap();
        let objects = s.store.list("", None, 10).await.unwrap().objects;
        let other = objects.iter().find(|object| object.key.as_str() == other).unwrap();
        s.store.delete(&other.key).await.unwrap();
        stop(restored).await;
    });
}
