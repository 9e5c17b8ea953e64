//! The limits of the policy on `retain_until_time`, for each role and each way to set it.

use chrono::Duration;
use prost_types::Timestamp;
use strongroom::{
    domain::clock::Clock,
    proto::{
        admin::v1::UpdateTenantRequest,
        v1::{CopyFileRequest, CreateUploadRequest, File, GetPolicyRequest, UploadSpec},
    },
};
use tonic::{Code, Status};

use crate::harness::{
    Caller, Service, direct_test, file_id, reason, resume_messages, service_test, service_test_with, spec,
    violated_fields,
};

fn time_in_days(s: &Service, days: i64) -> Timestamp {
    Timestamp { seconds: (s.clock.now() + Duration::days(days)).timestamp(), nanos: 0 }
}

fn retained(s: &Service, days: i64) -> UploadSpec {
    UploadSpec { retain_until_time: Some(time_in_days(s, days)), size_bytes: Some(5), ..spec("a") }
}

async fn set_retain_until(caller: &Caller, id: &str, until: Timestamp) -> Result<File, Status> {
    let file = File { id: id.to_owned(), retain_until_time: Some(until), ..File::default() };
    caller.update(file, &["retain_until_time"]).await
}

/// Tries to retain a new file in every way that creates one.
async fn create_in_every_way(caller: &Caller, spec: UploadSpec) -> [Result<(), Status>; 3] {
    let create = |direct| CreateUploadRequest { spec: Some(spec.clone()), direct };
    [
        caller.upload(spec.clone(), b"bytes").await.map(|_| ()),
        caller.uploads.clone().create_upload(create(false)).await.map(|_| ()),
        caller.uploads.clone().create_upload(create(true)).await.map(|_| ()),
    ]
}

#[test]
fn members_retain_nothing_and_admins_ten_years() {
    direct_test(|s| async move {
        for (caller, days) in [(s.alice(), 1), (s.maria(), 1), (s.billing(), 1), (s.ada(), 3_654)] {
            for result in create_in_every_way(&caller, retained(&s, days)).await {
                let error = result.unwrap_err();
                assert_eq!(error.code(), Code::InvalidArgument);
                assert_eq!(violated_fields(&error), ["spec.retain_until_time"]);
            }
            let id = file_id(&caller.upload(spec("b"), b"bytes").await.unwrap());
            let error = set_retain_until(&caller, &id, time_in_days(&s, days)).await.unwrap_err();
            assert_eq!(violated_fields(&error), ["file.retain_until_time"]);
        }
        let [one_shot, created, direct] = create_in_every_way(&s.ada(), retained(&s, 3_653)).await;
        assert!(one_shot.is_ok() && created.is_ok() && direct.is_ok(), "{one_shot:?} {created:?} {direct:?}");
        for id in s.ada().list_upload_ids(10).await {
            s.ada().cancel_upload(&id).await.unwrap();
        }
        let policy = s.alice().policies.clone().get_policy(GetPolicyRequest::default()).await.unwrap();
        let policy = policy.into_inner().policy.unwrap();
        assert_eq!((policy.retain_admin_days_max, policy.retain_member_days_max), (3_653, 0));
    });
}

#[test]
fn limits_begin_at_the_time_of_the_service() {
    direct_test(|s| async move {
        // As on a machine whose clock is behind the database's.
        s.clock.advance(Duration::days(10));
        let ada = s.ada();
        let [one_shot, created, direct] = create_in_every_way(&ada, retained(&s, 3_653)).await;
        assert!(one_shot.is_ok() && created.is_ok() && direct.is_ok(), "{one_shot:?} {created:?} {direct:?}");
        for id in ada.list_upload_ids(10).await {
            ada.cancel_upload(&id).await.unwrap();
        }
        let id = file_id(&ada.upload(spec("b"), b"bytes").await.unwrap());
        set_retain_until(&ada, &id, time_in_days(&s, 3_653)).await.unwrap();
    });
}

#[test]
fn open_upload_is_refused_if_the_limit_was_lowered() {
    direct_test(|s| async move {
        let ada = s.ada();
        let resumable = ada.create_upload(retained(&s, 30)).await.unwrap();
        let direct = ada.create_direct_upload(retained(&s, 30)).await.unwrap();
        let parts = s.put_parts(&direct, b"bytes").await;
        let set_limit = |retain_admin_days_max| UpdateTenantRequest {
            retain_admin_days_max,
            update_mask: Some(prost_types::FieldMask { paths: vec!["retain_admin_days_max".to_owned()] }),
            ..UpdateTenantRequest::default()
        };
        let tenant_id = ada.tenant_id().await;
        let lowered = UpdateTenantRequest { tenant_id: tenant_id.clone(), ..set_limit(7) };
        s.operator().tenants.clone().update_tenant(lowered).await.unwrap();
        for refused in [
            ada.upload_part(&resumable.id, 0, b"bytes").await.map(|_| ()),
            ada.send_messages(resume_messages(&resumable.id, b"bytes", 0, true)).await.map(|_| ()),
            ada.complete_direct_upload(&direct.id, &parts).await.map(|_| ()),
        ] {
            assert_eq!(violated_fields(&refused.unwrap_err()), ["spec.retain_until_time"]);
        }
        let raised = UpdateTenantRequest { tenant_id, ..set_limit(30) };
        s.operator().tenants.clone().update_tenant(raised).await.unwrap();
        ada.send_messages(resume_messages(&resumable.id, b"bytes", 0, true)).await.unwrap();
        ada.complete_direct_upload(&direct.id, &parts).await.unwrap();
    });
}

#[test]
fn only_owner_and_admin_set_retention_under_workspace() {
    let configure = |config: &mut strongroom::config::Config| config.tenants.preset = "workspace".to_owned();
    service_test_with(configure, |s| async move {
        let id = file_id(&s.alice().upload(spec("a"), b"bytes").await.unwrap());
        let update = UpdateTenantRequest {
            tenant_id: s.alice().tenant_id().await,
            retain_admin_days_max: 30,
            retain_member_days_max: 7,
            update_mask: Some(prost_types::FieldMask {
                paths: vec!["retain_admin_days_max".to_owned(), "retain_member_days_max".to_owned()],
            }),
            ..UpdateTenantRequest::default()
        };
        let denied = s.ada().tenants.clone().update_tenant(update.clone()).await.unwrap_err();
        assert_eq!(denied.code(), Code::PermissionDenied, "an admin does not change the limits");
        s.operator().tenants.clone().update_tenant(update).await.unwrap();
        s.bob().rename(&id, "bob may write").await.unwrap();
        let denied = set_retain_until(&s.bob(), &id, time_in_days(&s, 1)).await.unwrap_err();
        assert_eq!((denied.code(), reason(&denied)), (Code::PermissionDenied, "NOT_ALLOWED".to_owned()));
        let audited =
            "SELECT count(*) FROM audit_entries WHERE NOT is_allowed AND action = {audit_action.file_update}";
        assert_eq!(s.superuser.query_number(audited).await, 1);
        for (caller, days_max) in [(s.alice(), 7), (s.ada(), 30)] {
            let error = set_retain_until(&caller, &id, time_in_days(&s, days_max + 1)).await.unwrap_err();
            assert_eq!(violated_fields(&error), ["file.retain_until_time"]);
            set_retain_until(&caller, &id, time_in_days(&s, days_max)).await.unwrap();
        }
    });
}

#[test]
fn copy_is_not_retained_and_excess_retention_can_be_shortened() {
    service_test(|s| async move {
        let id = file_id(&s.ada().upload(spec("a"), b"bytes").await.unwrap());
        s.superuser.execute("UPDATE files SET retain_until_time = now() + interval '90 years'").await;
        let copy = CopyFileRequest { file_id: id.clone(), ..CopyFileRequest::default() };
        assert_eq!(s.alice().copy(copy).await.unwrap().retain_until_time, None);
        set_retain_until(&s.ada(), &id, time_in_days(&s, 20 * 365)).await.unwrap();
        let error = set_retain_until(&s.ada(), &id, time_in_days(&s, 21 * 365)).await.unwrap_err();
        assert_eq!(violated_fields(&error), ["file.retain_until_time"]);
    });
}
