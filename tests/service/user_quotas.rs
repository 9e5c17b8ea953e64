//! Quotas of users: exact limits under concurrency, the count of earlier files, each change of usage, who may set and
//! read them, and their repair.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use futures::future::join_all;
use prost_types::FieldMask;
use strongroom::{
    proto::v1::{
        CheckQuotaRequest, CopyFileRequest, ErrorReason, GetUserQuotaRequest, ListUserQuotasRequest,
        QuotaCheckItem, RecalculateUsageRequest, UpdateUserQuotaRequest, UploadSpec, UserQuota,
    },
    worker,
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::{
    harness::{
        Caller, PART, Service, file_id, pattern, reason, service_test, service_test_with, spec,
        violated_fields,
    },
    ownership::transfer,
};

impl Caller {
    pub(crate) async fn set_user_quota_in(
        &self,
        tenant: &str,
        user: &str,
        limit_bytes: Option<i64>,
        file_count_max: i64,
    ) -> Result<UserQuota, Status> {
        let quota =
            UserQuota { user_id: user.to_owned(), limit_bytes, file_count_max, ..UserQuota::default() };
        let paths = ["limit_bytes", "file_count_max"].map(str::to_owned).to_vec();
        let request = UpdateUserQuotaRequest {
            tenant_id: tenant.to_owned(),
            quota: Some(quota),
            update_mask: Some(FieldMask { paths }),
            ..UpdateUserQuotaRequest::default()
        };
        Ok(self.quotas.clone().update_user_quota(request).await?.into_inner().quota.unwrap())
    }

    pub(crate) async fn set_user_limit(&self, user: &str, limit_bytes: i64) -> UserQuota {
        self.set_user_quota_in("", user, Some(limit_bytes), 0).await.unwrap()
    }

    pub(crate) async fn user_quota(&self, user: &str) -> Result<UserQuota, Status> {
        let request = GetUserQuotaRequest { tenant_id: String::new(), user_id: user.to_owned() };
        Ok(self.quotas.clone().get_user_quota(request).await?.into_inner().quota.unwrap())
    }
}

/// Returns the used bytes and the number of files of a user.
async fn usage(s: &Service, user: &str) -> (i64, i64) {
    let quota = s.ada().user_quota(user).await.unwrap();
    assert_eq!((quota.reserved_bytes, quota.reserved_file_count), (0, 0), "{quota:?}");
    (quota.used_bytes, quota.file_count)
}

/// Asserts in a loop that no user exceeds a limit, until it is stopped.
struct Sampler {
    is_done: Arc<AtomicBool>,
    samples: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Sampler {
    async fn start(s: &Service) -> Self {
        let (is_done, samples) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let superuser = s.database.connect_as_superuser().await;
        let (done, count) = (is_done.clone(), samples.clone());
        let task = tokio::spawn(async move {
            while !done.load(Ordering::Relaxed) {
                let exceeded =
                    "SELECT count(*) FROM user_quotas WHERE used_bytes + reserved_bytes > limit_bytes
                    OR (file_count_max > 0 AND file_count + reserved_file_count > file_count_max)";
                assert_eq!(superuser.query_number(exceeded).await, 0, "limit of a user exceeded");
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { is_done, samples, task }
    }

    async fn stop(self) {
        self.is_done.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        assert!(self.samples.load(Ordering::Relaxed) > 0);
    }
}

#[test]
fn concurrent_uploads_fill_the_quota_of_a_user_exactly() {
    service_test(|s| async move {
        s.ada().set_user_limit("alice", 30_000).await;
        let sampler = Sampler::start(&s).await;
        let upload = |caller: Caller, n: usize| async move {
            let size_bytes = n.is_multiple_of(2).then_some(1_000);
            caller.upload(UploadSpec { size_bytes, ..spec(&format!("{n}")) }, &pattern(1_000)).await
        };
        let uploads = (0..120).map(|n| upload(if n % 3 == 0 { s.bob() } else { s.alice() }, n));
        let (mut alice, mut bob) = (0, 0);
        for (n, outcome) in join_all(uploads).await.into_iter().enumerate() {
            match outcome {
                Ok(_) if n % 3 == 0 => bob += 1,
                Ok(_) => alice += 1,
                Err(status) => {
                    assert_eq!(reason(&status), "USER_QUOTA_BYTES_EXCEEDED");
                    assert_eq!(status.code(), Code::ResourceExhausted);
                    let details = status.get_error_details();
                    assert_eq!(details.quota_failure().unwrap().violations[0].subject, "user");
                    assert!(details.retry_info().is_none());
                }
            }
        }
        sampler.stop().await;
        assert_eq!((alice, bob), (30, 40), "a user with no space left does not affect others");
        assert_eq!(usage(&s, "alice").await, (30_000, 30));
    });
}

#[test]
fn concurrent_large_uploads_stay_within_the_limits() {
    service_test(|s| async move {
        let size = 2 * PART + 1;
        let files_max = 5;
        s.ada().set_user_quota_in("", "alice", Some(8 * size as i64), files_max).await.unwrap();
        let sampler = Sampler::start(&s).await;
        let data = pattern(size);
        let attempts = (0..24).map(|n| {
            let size_bytes = (n % 2 == 0).then_some(size as i64);
            let (alice, data) = (s.alice(), &data);
            async move { alice.upload(UploadSpec { size_bytes, ..spec(&format!("{n}")) }, data).await }
        });
        let mut stored = 0;
        for outcome in join_all(attempts).await {
            match outcome {
                Ok(_) => stored += 1,
                Err(status) => assert!(reason(&status).starts_with("USER_QUOTA_"), "{status:?}"),
            }
        }
        sampler.stop().await;
        assert!((1..=files_max).contains(&stored), "{stored}");
        s.wait_until("reservations are released", || async {
            s.ada().user_quota("alice").await.unwrap().reserved_bytes == 0
        })
        .await;
        for n in stored..files_max {
            s.alice().upload(spec(&format!("later {n}")), &data).await.unwrap();
        }
        let error = s.alice().upload(spec("one more"), b"x").await.unwrap_err();
        assert_eq!(reason(&error), "USER_QUOTA_FILES_EXCEEDED");
        assert_eq!(
            error.message(),
            "user alice has 5 files; its limit is 5; purge some, or ask an admin for a higher limit"
        );
        assert_eq!(usage(&s, "alice").await, (5 * size as i64, 5));
    });
}

#[test]
fn upload_of_unknown_size_fills_the_quota_to_the_last_byte() {
    service_test(|s| async move {
        // More than one step of the reservation, and less than two.
        let size = 5 * PART;
        s.ada().set_user_limit("alice", size as i64).await;
        s.alice().upload(spec("fits"), &pattern(size)).await.unwrap();
        let error = s.alice().upload(spec("too much"), b"x").await.unwrap_err();
        assert_eq!(
            error.message(),
            "1 more bytes exceed the quota of user alice: 327680 bytes used and 0 reserved of 327680; purge files of the user, or ask an admin for a higher limit"
        );
        assert_eq!(s.quota_row(&s.alice()).await.used_bytes, size as i64);
    });
}

#[test]
fn first_limit_counts_files_and_uploads_from_before() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = file_id(&alice.upload(spec("a"), &[1; 300]).await.unwrap());
        alice.upload_version(&id, &[2; 50]).await.unwrap();
        let trashed = file_id(&alice.upload(spec("trash"), &[1; 7]).await.unwrap());
        alice.delete(&trashed).await.unwrap();
        s.bob().upload(spec("of bob"), &[1; 999]).await.unwrap();
        let open = alice.create_upload(UploadSpec { size_bytes: Some(40), ..spec("open") }).await.unwrap();

        let below = s.ada().set_user_quota_in("", "alice", Some(396), 0).await.unwrap_err();
        assert_eq!((below.code(), reason(&below).as_str()), (Code::FailedPrecondition, "QUOTA_BELOW_USAGE"));
        assert_eq!(s.ada().user_quota("alice").await.unwrap().limit_bytes, None);
        let quota = s.ada().set_user_limit("alice", 397).await;
        assert_eq!((quota.used_bytes, quota.reserved_bytes), (357, 40));
        assert_eq!((quota.file_count, quota.reserved_file_count), (2, 1));
        alice.cancel_upload(&open.id).await.unwrap();
        assert_eq!(usage(&s, "alice").await, (357, 2));
        alice.upload(spec("fits now"), &[1; 40]).await.unwrap();
        alice.upload(spec("no more"), &[1; 1]).await.unwrap_err();
    });
}

#[test]
fn first_limits_are_exact_while_files_change() {
    service_test(|s| async move {
        let users: Vec<String> = (0..6).map(|n| format!("user {n}")).collect();
        let changes = users.iter().map(|user| {
            let (caller, ada) = (s.member(user, "acme", "member", &[]), s.ada());
            async move {
                let write = async |numbers: std::ops::Range<usize>| {
                    for n in numbers {
                        let size = if n % 4 == 3 { 2 * PART } else { 100 };
                        let stored = caller.upload(spec(&format!("{n}")), &pattern(size)).await.unwrap();
                        if n % 3 == 0 {
                            caller.delete(&file_id(&stored)).await.unwrap();
                            caller.purge(&file_id(&stored)).await.unwrap();
                        }
                    }
                };
                // Files from before the limit, and changes while they are counted.
                write(0..5).await;
                tokio::join!(write(5..10), ada.set_user_limit(user, 1 << 40));
            }
        });
        join_all(changes).await;
        // The invariants at the end of the test compare each user with its files.
        for user in &users {
            assert_eq!(usage(&s, user).await.1, 6);
        }
    });
}

#[test]
fn usage_follows_each_change_of_a_file() {
    service_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        ada.set_user_limit("alice", 10_000).await;
        ada.set_user_limit("bob", 10_000).await;
        let id = file_id(&alice.upload(spec("a"), &[1; 100]).await.unwrap());
        ada.upload_version(&id, &pattern(3_000)).await.unwrap();
        assert_eq!(usage(&s, "alice").await, (3_100, 1), "a version counts for the owner of its file");
        alice.restore_version(&id, 1).await.unwrap();
        assert_eq!(usage(&s, "alice").await, (3_200, 1));
        alice.delete_version(&id, 2).await.unwrap();
        assert_eq!(usage(&s, "alice").await, (200, 1));
        let copy = CopyFileRequest { file_id: id.clone(), ..CopyFileRequest::default() };
        let copy = s.bob().copy(copy).await.unwrap();
        assert_eq!(usage(&s, "bob").await, (100, 1), "a copy counts for its owner");
        alice.delete(&id).await.unwrap();
        assert_eq!(usage(&s, "alice").await, (200, 1), "the trash counts");
        alice.undelete(&id).await.unwrap();
        transfer(&ada, ("alice", "bob"), |_| {}).await.unwrap();
        assert_eq!((usage(&s, "alice").await, usage(&s, "bob").await), ((0, 0), (300, 2)));
        s.bob().delete(&id).await.unwrap();
        s.bob().purge(&id).await.unwrap();
        s.bob().delete(&copy.id).await.unwrap();
        assert_eq!(usage(&s, "bob").await, (100, 1));
    });
}

#[test]
fn usage_without_the_trash_follows_deletions() {
    service_test(|s| async move {
        let (pupil, head) = (s.pupil(), s.head());
        let id = file_id(&pupil.upload(spec("a"), &[1; 100]).await.unwrap());
        let other = file_id(&pupil.upload(spec("b"), &[1; 50]).await.unwrap());
        pupil.delete(&other).await.unwrap();
        let quota = head.set_user_limit("pupil", 120).await;
        assert_eq!((quota.used_bytes, quota.file_count), (100, 1));
        let error = pupil.undelete(&other).await.unwrap_err();
        assert_eq!(reason(&error), "USER_QUOTA_BYTES_EXCEEDED");
        pupil.delete(&id).await.unwrap();
        pupil.undelete(&other).await.unwrap();
        assert_eq!(head.user_quota("pupil").await.unwrap().used_bytes, 50);
    });
}

#[test]
fn refused_changes_leave_no_trace() {
    service_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        let id = file_id(&alice.upload(spec("a"), &[1; 100]).await.unwrap());
        ada.set_user_limit("alice", 150).await;
        ada.set_user_quota_in("", "bob", None, 1).await.unwrap();
        s.bob().upload(spec("only one"), b"x").await.unwrap();

        let copy = CopyFileRequest { file_id: id.clone(), ..CopyFileRequest::default() };
        assert_eq!(reason(&s.bob().copy(copy).await.unwrap_err()), "USER_QUOTA_FILES_EXCEEDED");
        let error = ada.upload_version(&id, &[2; 51]).await.unwrap_err();
        assert_eq!(reason(&error), "USER_QUOTA_BYTES_EXCEEDED");
        let error = ada.upload_version(&id, &pattern(2 * PART)).await.unwrap_err();
        assert_eq!(reason(&error), "USER_QUOTA_BYTES_EXCEEDED");
        assert_eq!(reason(&alice.restore_version(&id, 1).await.unwrap_err()), "VERSION_IS_CURRENT");
        let error = transfer(&ada, ("alice", "bob"), |_| {}).await.unwrap_err();
        assert_eq!(reason(&error), "USER_QUOTA_FILES_EXCEEDED");
        assert_eq!(ada.get(&id).await.unwrap().owner_id, "alice");
        assert_eq!((usage(&s, "alice").await, usage(&s, "bob").await), ((100, 1), (1, 1)));
        assert_eq!(s.quota_row(&alice).await.used_bytes, 101);
    });
}

#[test]
fn open_upload_is_released_from_the_user_that_reserved_it() {
    service_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        let id = file_id(&alice.upload(spec("a"), &[1; 100]).await.unwrap());
        ada.set_user_limit("alice", 10_000_000).await;
        ada.set_user_limit("bob", 10_000_000).await;
        let size = PART + 10;
        let version =
            UploadSpec { file_id: id.clone(), size_bytes: Some(size as i64), ..UploadSpec::default() };
        let open = ada.create_upload(version).await.unwrap();
        assert_eq!(ada.user_quota("alice").await.unwrap().reserved_bytes, size as i64);
        transfer(&ada, ("alice", "bob"), |_| {}).await.unwrap();
        let data = pattern(size);
        ada.upload_part(&open.id, 0, &data[..PART]).await.unwrap();
        ada.upload_part(&open.id, PART, &data[PART..]).await.unwrap();
        ada.complete_upload(&open.id, size).await.unwrap();
        assert_eq!((usage(&s, "alice").await, usage(&s, "bob").await), ((0, 0), (100 + size as i64, 1)));
    });
}

#[test]
fn usage_of_another_owner_is_hidden_in_errors() {
    let configure = |config: &mut strongroom::config::Config| {
        config.tenants.presets.insert("team".to_owned(), "workspace".to_owned());
    };
    service_test_with(configure, |s| async move {
        let member = |user, role| s.member(user, "team", role, &[]);
        let id = file_id(&member("olga", "member").upload(spec("a"), &[1; 60]).await.unwrap());
        member("root", "admin").set_user_limit("olga", 100).await;
        let error = member("mark", "member").upload_version(&id, &[1; 50]).await.unwrap_err();
        let hidden = "50 more bytes exceed the quota of user olga: the limit is 100 bytes; purge files of the user, or ask an admin for a higher limit";
        assert_eq!(error.message(), hidden);
        let metadata = error.get_error_details().error_info().unwrap().metadata.clone();
        assert!(!metadata.contains_key("used_bytes"), "{metadata:?}");
        let error = member("olga", "member").upload_version(&id, &[1; 50]).await.unwrap_err();
        assert_eq!(error.get_error_details().error_info().unwrap().metadata["used_bytes"], "60");

        let item = QuotaCheckItem { size_bytes: 50, file_id: id, ..QuotaCheckItem::default() };
        let request = CheckQuotaRequest { items: vec![item] };
        let checked =
            member("mark", "member").quotas.clone().check_quota(request).await.unwrap().into_inner();
        assert_eq!(checked.results[0].violations[0].description, hidden);
    });
}

#[test]
fn check_names_the_limits_of_the_user() {
    service_test(|s| async move {
        s.ada().set_user_quota_in("", "alice", Some(100), 1).await.unwrap();
        let item = |size_bytes| QuotaCheckItem { size_bytes, ..QuotaCheckItem::default() };
        let request = CheckQuotaRequest { items: vec![item(60), item(50), item(101)] };
        let checked = s.alice().quotas.clone().check_quota(request.clone()).await.unwrap().into_inner();
        let fits: Vec<bool> = checked.results.iter().map(|result| result.fits).collect();
        assert_eq!((fits, checked.fits), (vec![true, true, false], false));
        let reasons: Vec<_> = checked.violations.iter().map(|violation| violation.reason()).collect();
        assert_eq!(reasons, [ErrorReason::UserQuotaBytesExceeded]);
        let request = CheckQuotaRequest { items: vec![item(1), item(1)] };
        let checked = s.alice().quotas.clone().check_quota(request.clone()).await.unwrap().into_inner();
        assert_eq!(checked.violations[0].reason(), ErrorReason::UserQuotaFilesExceeded);
        assert!(s.bob().quotas.clone().check_quota(request).await.unwrap().into_inner().fits);
    });
}

#[test]
fn limits_are_set_by_admins_and_read_by_their_user() {
    service_test(|s| async move {
        let (alice, ada, tenant) = (s.alice(), s.ada(), s.ada().tenant_id().await);
        let denied = alice.set_user_quota_in("", "alice", None, 0).await.unwrap_err();
        assert_eq!(denied.code(), Code::PermissionDenied);
        assert_eq!(alice.user_quota("bob").await.unwrap_err().code(), Code::PermissionDenied);
        assert_eq!(
            alice.user_quota("").await.unwrap(),
            UserQuota { user_id: "alice".into(), etag: "0".into(), ..UserQuota::default() }
        );
        s.operator().set_user_quota_in(&tenant, "alice", Some(500), 3).await.unwrap();
        let own = alice.user_quota("").await.unwrap();
        assert_eq!((own.limit_bytes, own.file_count_max), (Some(500), 3));
        assert_eq!(s.billing().user_quota("alice").await.unwrap(), own);
        assert_eq!(s.gus().user_quota("alice").await.unwrap().limit_bytes, None, "another tenant");

        let invalid = ada.set_user_quota_in("", "", Some(-1), -1).await.unwrap_err();
        let fields = ["quota.user_id", "quota.limit_bytes", "quota.file_count_max"];
        assert_eq!(violated_fields(&invalid), fields);
        let quota = Some(UserQuota { user_id: "alice".to_owned(), ..UserQuota::default() });
        let mask = |path: &str| Some(FieldMask { paths: vec![path.to_owned()] });
        let request = UpdateUserQuotaRequest { quota, update_mask: mask("used_bytes"), ..Default::default() };
        let error = ada.quotas.clone().update_user_quota(request.clone()).await.unwrap_err();
        assert_eq!(violated_fields(&error), ["update_mask.paths[0]"]);
        let stale =
            UpdateUserQuotaRequest { update_mask: mask("limit_bytes"), if_etag: "0".to_owned(), ..request };
        let error = ada.quotas.clone().update_user_quota(stale.clone()).await.unwrap_err();
        assert_eq!(reason(&error), "ETAG_MISMATCH");
        let current = UpdateUserQuotaRequest { if_etag: own.etag, ..stale };
        let removed =
            ada.quotas.clone().update_user_quota(current).await.unwrap().into_inner().quota.unwrap();
        assert_eq!((removed.limit_bytes, removed.file_count_max), (None, 3));
        let entries = "SELECT actor_id FROM audit_entries WHERE action = {audit_action.user_quota_update} AND is_allowed";
        assert_eq!(s.superuser.query_texts(entries).await.len(), 2);
    });
}

#[test]
fn repeated_request_changes_the_limits_once() {
    service_test(|s| async move {
        let ada = s.ada();
        let request = UpdateUserQuotaRequest {
            quota: Some(UserQuota {
                user_id: "alice".to_owned(),
                limit_bytes: Some(100),
                ..Default::default()
            }),
            update_mask: Some(FieldMask { paths: vec!["limit_bytes".to_owned()] }),
            request_id: "0198c0de-0000-7000-8000-0000000000b1".to_owned(),
            ..UpdateUserQuotaRequest::default()
        };
        let first = ada.quotas.clone().update_user_quota(request.clone()).await.unwrap().into_inner();
        ada.set_user_limit("alice", 200).await;
        let repeated = ada.quotas.clone().update_user_quota(request).await.unwrap().into_inner();
        assert_eq!(first, repeated);
        assert_eq!(ada.user_quota("alice").await.unwrap().limit_bytes, Some(200));
    });
}

#[test]
fn users_with_a_limit_are_listed_in_pages() {
    service_test(|s| async move {
        let ada = s.ada();
        for user in ["carol", "alice", "dave", "bob"] {
            ada.set_user_limit(user, 100).await;
        }
        ada.set_user_quota_in("", "carol", None, 0).await.unwrap();
        let mut request = ListUserQuotasRequest { page_size: 2, ..ListUserQuotasRequest::default() };
        let mut pages = Vec::new();
        loop {
            let page = ada.quotas.clone().list_user_quotas(request.clone()).await.unwrap().into_inner();
            pages.push(page.quotas.into_iter().map(|quota| quota.user_id).collect::<Vec<_>>());
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        assert_eq!(pages, [vec!["alice", "bob"], vec!["dave"]]);
        let denied = s.alice().quotas.clone().list_user_quotas(ListUserQuotasRequest::default()).await;
        assert_eq!(denied.unwrap_err().code(), Code::PermissionDenied);
    });
}

#[test]
fn wrong_usage_of_a_user_is_found_and_repaired() {
    service_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        alice.upload(spec("a"), &[1; 300]).await.unwrap();
        ada.set_user_limit("alice", 1_000).await;
        ada.set_user_limit("bob", 1_000).await;
        s.superuser
            .execute("UPDATE user_quotas SET used_bytes = 700, file_count = 9 WHERE user_id = 'alice'")
            .await;
        let report = s.run_fsck().await;
        assert_eq!(report.violations.len(), 1, "{report:?}");
        assert_eq!(report.violations[0].subject, "user_quotas alice");
        ada.quotas.clone().recalculate_usage(RecalculateUsageRequest::default()).await.unwrap();
        assert_eq!(worker::run_due_jobs(&s.app).await.done, 1);
        assert_eq!(usage(&s, "alice").await, (300, 1));
    });
}
