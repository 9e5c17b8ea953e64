//! Quota alerts: one for each crossing of a threshold, in the transaction of the change, with hysteresis.

use futures::future::join_all;
use strongroom::{
    config::Config,
    db::{
        Database, TenantTx, Viewer,
        quotas::{ChargeOutcome, QuotaDelta, apply_delta},
    },
    domain::ids::TenantId,
    proto::v1::{
        CopyFileRequest, FileEventKind as Kind, ListQuotaAlertsRequest, Quota, QuotaAlert,
        QuotaLevel as Level, WatchFilesRequest, WatchFilter, Webhook,
    },
};
use tonic::{Code, Status};

use crate::{
    harness::{
        Caller, Receiver, Service, WAIT_MAX, database_options, file_id, reason, service_test, spec,
        violated_fields,
    },
    webhooks::local_test,
};

async fn charge(tx: &mut TenantTx, delta: QuotaDelta) {
    let outcome = apply_delta(tx, delta, &[]).await.unwrap();
    assert!(matches!(outcome, ChargeOutcome::Charged(_)), "{outcome:?}");
}

async fn list_page(
    caller: &Caller,
    request: ListQuotaAlertsRequest,
) -> Result<(Vec<QuotaAlert>, String), Status> {
    let page = caller.quotas.clone().list_quota_alerts(request).await?.into_inner();
    Ok((page.alerts, page.next_page_token))
}

/// Returns the alerts, the newest first.
async fn list_alerts(s: &Service) -> Vec<QuotaAlert> {
    list_page(&s.ada(), ListQuotaAlertsRequest::default()).await.unwrap().0
}

/// Returns the levels of the alerts with the usage that raised them, the oldest first.
async fn list_crossings(s: &Service) -> Vec<(Level, i64)> {
    list_alerts(s).await.iter().rev().map(|alert| (alert.level(), alert.used_bytes)).collect()
}

async fn upload(caller: &Caller, bytes: usize) -> String {
    file_id(&caller.upload(spec(&bytes.to_string()), &vec![7; bytes]).await.unwrap())
}

/// Lets purged files, whose objects are deleted days later, not count against the limit.
async fn ignore_pending_deletion(s: &Service) {
    s.superuser.execute("UPDATE quotas SET pending_deletion_multiple = 6").await;
}

async fn delete_and_purge(caller: &Caller, id: &str) {
    caller.delete(id).await.unwrap();
    caller.purge(id).await.unwrap();
}

#[test]
fn each_threshold_raises_one_alert_per_crossing() {
    service_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        ada.set_limit_bytes(1000).await;
        assert_eq!(alice.quota().await.unwrap().last_warning_sent_time, None);
        upload(&alice, 799).await;
        assert_eq!(list_alerts(&s).await, []);
        upload(&alice, 1).await;
        let [warning] = list_alerts(&s).await.try_into().unwrap();
        assert_eq!(
            (warning.level(), warning.threshold_percent, warning.used_bytes, warning.limit_bytes),
            (Level::Warning, 80, 800, 1000)
        );
        assert!(warning.id.parse::<uuid::Uuid>().unwrap().get_version_num() == 7, "{}", warning.id);
        assert_eq!(alice.quota().await.unwrap().last_warning_sent_time, warning.create_time);
        upload(&alice, 149).await;
        assert_eq!(list_alerts(&s).await.len(), 1);
        upload(&alice, 1).await;
        upload(&alice, 50).await;
        assert_eq!(list_crossings(&s).await, [(Level::Warning, 800), (Level::Critical, 950)]);
    });
}

#[test]
fn alert_is_armed_again_two_percent_below_its_threshold() {
    service_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        ada.set_limit_bytes(1000).await;
        upload(&alice, 760).await;
        let [last, small, tiny] =
            [upload(&alice, 20).await, upload(&alice, 19).await, upload(&alice, 1).await];
        assert_eq!(list_crossings(&s).await, [(Level::Warning, 800)]);
        // 780 bytes are not below 78 percent.
        delete_and_purge(&alice, &small).await;
        delete_and_purge(&alice, &tiny).await;
        let again = upload(&alice, 20).await;
        assert_eq!(list_alerts(&s).await.len(), 1, "usage that varies around the threshold raises one alert");
        delete_and_purge(&alice, &again).await;
        delete_and_purge(&alice, &last).await;
        upload(&alice, 40).await;
        assert_eq!(list_crossings(&s).await, [(Level::Warning, 800); 2]);

        // From critical to between the thresholds, the warning stays raised.
        let most = upload(&alice, 150).await;
        delete_and_purge(&alice, &most).await;
        upload(&alice, 160).await;
        let expected =
            [(Level::Warning, 800), (Level::Warning, 800), (Level::Critical, 950), (Level::Critical, 960)];
        assert_eq!(list_crossings(&s).await, expected);
    });
}

#[test]
fn change_across_both_thresholds_raises_critical_alert() {
    service_test(|s| async move {
        let alice = s.alice();
        s.ada().set_limit_bytes(1000).await;
        let id = upload(&alice, 990).await;
        assert_eq!(list_crossings(&s).await, [(Level::Critical, 990)]);
        delete_and_purge(&alice, &id).await;
        upload(&alice, 900).await;
        assert_eq!(list_crossings(&s).await, [(Level::Critical, 990), (Level::Warning, 900)]);
    });
}

#[test]
fn every_change_of_usage_and_limits_raises_alerts() {
    service_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        ada.set_limit_bytes(1000).await;
        let id = upload(&alice, 450).await;
        let request = CopyFileRequest { file_id: id.clone(), ..CopyFileRequest::default() };
        let copy = alice.copy(request).await.unwrap();
        assert_eq!(list_crossings(&s).await, [(Level::Warning, 900)]);
        delete_and_purge(&alice, &copy.id).await;
        alice.upload_version(&id, &[8; 350]).await.unwrap();
        assert_eq!(list_crossings(&s).await.last(), Some(&(Level::Warning, 800)));
        alice.delete_version(&id, 1).await.unwrap();
        alice.upload_version(&id, &[9; 100]).await.unwrap();
        alice.restore_version(&id, 2).await.unwrap();
        assert_eq!(list_crossings(&s).await.last(), Some(&(Level::Warning, 800)));
        assert_eq!(list_alerts(&s).await.len(), 3);

        ada.set_limit_bytes(840).await;
        assert_eq!(list_crossings(&s).await[3..], [(Level::Critical, 800)]);
        ada.set_limit_bytes(10_000).await;
        let quota = Quota { warning_percent: 8, critical_percent: 100, ..Quota::default() };
        let updated = ada.update_quota("", quota, &["warning_percent", "critical_percent"]).await.unwrap();
        let alerts = list_alerts(&s).await;
        assert_eq!((alerts[0].level(), alerts[0].threshold_percent), (Level::Warning, 8));
        assert_eq!(
            updated.last_warning_sent_time, alerts[0].create_time,
            "the response is that of the new row"
        );
    });
}

#[test]
fn limit_of_zero_has_no_thresholds() {
    service_test(|s| async move {
        s.ada().set_limit_bytes(0).await;
        s.superuser
            .execute(
                "UPDATE quotas SET ceiling_bytes = 1::bigint << 60, limit_bytes = 1::bigint << 60 WHERE limit_bytes = 0",
            )
            .await;
        assert_eq!(list_alerts(&s).await, []);
        let fill = "UPDATE quotas SET used_bytes = limit_bytes - 1 WHERE limit_bytes = 1::bigint << 60";
        s.superuser.execute(fill).await;
        let [alert] = list_alerts(&s).await.try_into().unwrap();
        assert_eq!(alert.used_bytes, (1 << 60) - 1);
        s.superuser.execute("UPDATE quotas SET used_bytes = 0").await;
    });
}

/// Opens the pool of another process.
fn open_database(s: &Service) -> Database {
    let mut options = database_options(&Config::defaults().unwrap(), &s.database);
    (options.acquire_timeout, options.statement_timeout) = (WAIT_MAX, WAIT_MAX);
    Database::open(&options).unwrap()
}

#[test]
fn concurrent_changes_raise_one_alert_per_crossing() {
    service_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        let tenant: TenantId = alice.tenant_id().await.parse().unwrap();
        // No batch of uploads crosses both thresholds.
        let quota =
            Quota { limit_bytes: 6400, warning_percent: 50, critical_percent: 100, ..Quota::default() };
        let paths = ["limit_bytes", "warning_percent", "critical_percent"];
        ada.update_quota("", quota, &paths).await.unwrap();
        ignore_pending_deletion(&s).await;
        let other = open_database(&s);
        for round in 1..=4 {
            let uploads = (0..32).map(|_| upload(&alice, 100));
            let charges = (0..32).map(|_| async {
                let mut tx = other.tenant_tx(tenant, &Viewer::system()).await.unwrap();
                charge(&mut tx, QuotaDelta::for_added_file(100)).await;
                tx.commit().await.unwrap();
            });
            let (files, _) = futures::join!(join_all(uploads), join_all(charges));
            let levels: Vec<Level> = list_crossings(&s).await.into_iter().map(|(level, _)| level).collect();
            assert_eq!(levels, [Level::Warning, Level::Critical].repeat(round));
            let removals = files.iter().map(|id| delete_and_purge(&alice, id));
            let refunds = async {
                let mut tx = other.tenant_tx(tenant, &Viewer::system()).await.unwrap();
                for _ in 0..32 {
                    charge(&mut tx, QuotaDelta::for_removed_file(100)).await;
                }
                tx.commit().await.unwrap();
            };
            futures::join!(join_all(removals), refunds);
        }
        let events = "SELECT count(*) FROM events WHERE kind = {event_kind.quota_alert}";
        assert_eq!(s.superuser.query_number(events).await, 8);
        assert_eq!(s.superuser.query_number("SELECT sum(alert_count) FROM quotas").await, 8);
    });
}

#[test]
fn change_that_is_rolled_back_raises_no_alert() {
    service_test(|s| async move {
        let tenant: TenantId = s.alice().tenant_id().await.parse().unwrap();
        s.ada().set_limit_bytes(1000).await;
        let mut tx = s.app.db().tenant_tx(tenant, &Viewer::system()).await.unwrap();
        charge(&mut tx, QuotaDelta::for_added_file(990)).await;
        tx.rollback().await.unwrap();
        let rows =
            "SELECT (SELECT count(*) FROM quota_alerts) + (SELECT count(*) FROM events) + sum(alert_count)
                    FROM quotas";
        assert_eq!(s.superuser.query_number(rows).await, 0);
        let error = s.alice().upload(spec("too large"), &[0; 1001]).await.unwrap_err();
        assert_eq!(reason(&error), "QUOTA_BYTES_EXCEEDED");
        assert_eq!(list_alerts(&s).await, []);
    });
}

#[test]
fn alert_is_an_event_for_admins_who_ask_for_it() {
    local_test(
        |_| {},
        |s, receiver| async move {
            let (all, kinds) = (Receiver::start().await, vec![Kind::QuotaAlert.into()]);
            let wanted = Webhook { url: receiver.url.clone(), kinds: kinds.clone(), ..Webhook::default() };
            s.create_webhook(wanted).await.unwrap();
            s.create_webhook_to(&all.url).await;
            let filter = Some(WatchFilter { kinds, ..WatchFilter::default() });
            let request = WatchFilesRequest { filter, ..WatchFilesRequest::default() };
            let mut admin = s.ada().watch_files_with(request).await.unwrap();
            let mut others = [s.ada().watch_files().await, s.alice().watch_files().await];
            s.ada().set_limit_bytes(1000).await;
            let first = upload(&s.alice(), 900).await;
            let event = admin.next_event().await;
            let [alert] = list_alerts(&s).await.try_into().unwrap();
            assert_eq!((event.kind(), event.quota_level()), (Kind::QuotaAlert, Level::Warning));
            assert_eq!(
                (event.quota_alert_id, event.file_id, event.version),
                (alert.id.clone(), String::new(), 0)
            );

            assert_eq!(s.deliver_all().await, 2);
            let message = receiver.messages()[0].json();
            assert_eq!((message["type"].as_str(), receiver.messages().len()), (Some("quota.alert"), 1));
            assert_eq!(message["data"]["quota_alert_id"], alert.id);
            assert_eq!(message["data"]["level"], "warning");
            assert_eq!(all.received_file_ids(), std::slice::from_ref(&first));
            let second = upload(&s.alice(), 1).await;
            for watcher in &mut others {
                assert_eq!(watcher.next_kind_and_file().await, (Kind::Created, first.clone()));
                assert_eq!(watcher.next_kind_and_file().await, (Kind::Created, second.clone()));
            }
        },
    );
}

#[test]
fn alerts_are_listed_in_pages_for_admins_of_the_tenant() {
    service_test(|s| async move {
        let (ada, alice) = (s.ada(), s.alice());
        ada.set_limit_bytes(1000).await;
        ignore_pending_deletion(&s).await;
        for _ in 0..3 {
            let id = upload(&alice, 900).await;
            delete_and_purge(&alice, &id).await;
        }
        let mut request = ListQuotaAlertsRequest { page_size: 2, ..ListQuotaAlertsRequest::default() };
        let (first, token) = list_page(&ada, request.clone()).await.unwrap();
        request.page_token = token.clone();
        let (second, end) = list_page(&ada, request.clone()).await.unwrap();
        assert_eq!((first.len(), second.len(), end.as_str()), (2, 1, ""));
        assert_eq!([first, second].concat(), list_alerts(&s).await);

        let tenant_id = alice.tenant_id().await;
        let as_operator = ListQuotaAlertsRequest { tenant_id: tenant_id.clone(), ..Default::default() };
        assert_eq!(list_page(&s.operator(), as_operator).await.unwrap().0.len(), 3);
        assert_eq!(
            list_page(&s.gus(), request).await.map_err(|error| reason(&error)),
            Err("PAGE_TOKEN_INVALID".into())
        );
        let error = list_page(&alice, ListQuotaAlertsRequest::default()).await.unwrap_err();
        assert_eq!(error.code(), Code::PermissionDenied);
        let request = ListQuotaAlertsRequest { page_size: -1, ..ListQuotaAlertsRequest::default() };
        assert_eq!(violated_fields(&list_page(&ada, request).await.unwrap_err()), ["page_size"]);
        assert_eq!(list_page(&s.gus(), ListQuotaAlertsRequest::default()).await.unwrap().0, []);
    });
}

#[test]
fn newest_thousand_alerts_are_kept() {
    service_test(|s| async move {
        s.ada().set_limit_bytes(1000).await;
        s.superuser
            .execute(
                "DO $$ BEGIN FOR n IN 1..1003 LOOP
                     UPDATE quotas SET used_bytes = 900; UPDATE quotas SET used_bytes = 0;
                 END LOOP; END $$",
            )
            .await;
        let kept = s.superuser.query_number("SELECT count(*) FROM quota_alerts GROUP BY tenant_id").await;
        let oldest = s.superuser.query_number("SELECT min(number) FROM quota_alerts").await;
        assert_eq!((kept, oldest), (1000, 4));
    });
}
