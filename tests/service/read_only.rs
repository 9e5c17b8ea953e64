//! Read-only tenants: their callers read as before, and change nothing.

use futures::SinkExt as _;
use prost_types::FieldMask;
use strongroom::{
    grpc::auth::access::{Access, TABLE, is_read},
    proto::{
        admin::v1::{Tenant, UpdateTenantRequest},
        v1::UploadSpec,
    },
};
use tonic::{Code, Status};

use crate::{
    contract::{Targets, call},
    harness::{
        Caller, PART, Service, chunk, file_id, finish, pattern, reason, service_test, spec, spec_message,
    },
};

impl Caller {
    pub(crate) async fn set_read_only(&self, tenant: &str, read_only: bool) -> Result<Tenant, Status> {
        let request = UpdateTenantRequest {
            tenant_id: tenant.to_owned(),
            read_only,
            update_mask: Some(FieldMask { paths: vec!["read_only".to_owned()] }),
            ..UpdateTenantRequest::default()
        };
        Ok(self.tenants.clone().update_tenant(request).await?.into_inner().tenant.unwrap())
    }
}

fn assert_read_only(status: &Status) {
    assert_eq!(
        (status.code(), reason(status).as_str()),
        (Code::FailedPrecondition, "TENANT_READ_ONLY"),
        "{status:?}"
    );
}

async fn count_changes(s: &Service, tenant: &str) -> i64 {
    s.superuser
        .query_number(&format!(
            "SELECT count(*) FROM audit_entries WHERE tenant_id = '{tenant}'
             AND action = {{audit_action.policy_update}} AND details ? 'read_only'"
        ))
        .await
}

#[test]
fn read_only_tenant_refuses_every_change() {
    service_test(|s| async move {
        let (ada, operator) = (s.ada(), s.operator());
        let targets = Targets::create(&ada).await;
        let acme = ada.tenant_id().await;
        assert!(operator.set_read_only(&acme, true).await.unwrap().read_only);
        assert!(ada.policy().await.unwrap().read_only, "members see it");
        let mut refused = 0;
        for (path, access) in TABLE.iter().filter(|(path, _)| path.starts_with("/strongroom.")) {
            // Ada has no scope.
            if matches!(
                access,
                Access::Operator | Access::Anonymous | Access::Visitor | Access::ScopeOrOperator(_)
            ) {
                continue;
            }
            match call(path, &ada, &targets, "").await {
                Err(status) if !is_read(path) => {
                    assert_read_only(&status);
                    refused += 1;
                }
                Err(status) => assert_ne!(reason(&status), "TENANT_READ_ONLY", "{path}"),
                Ok(()) => assert!(is_read(path), "{path} changed a read-only tenant"),
            }
        }
        assert!(refused >= 25, "{refused}");
        assert!(s.mallory().upload(spec("a"), b"x").await.is_ok(), "other tenants are not affected");

        let still = operator.set_read_only(&acme, true).await.unwrap();
        assert!(still.read_only);
        assert!(!operator.set_read_only(&acme, false).await.unwrap().read_only);
        assert_eq!(count_changes(&s, &acme).await, 2, "an update without a change is not recorded");
        ada.upload(spec("b"), b"y").await.unwrap();
        targets.cancel_upload(&ada).await;
    });
}

#[test]
fn upload_in_progress_is_refused_at_its_commit() {
    service_test(|s| async move {
        let alice = s.alice();
        let acme = alice.tenant_id().await;
        let open = alice.create_upload(spec("open")).await.unwrap().id;
        // The stream has passed the check of its call when the tenant becomes read-only.
        let (mut messages, receiver) = futures::channel::mpsc::channel(0);
        let mut files = alice.files.clone();
        let response = tokio::spawn(async move { files.upload_file(receiver).await });
        let upload = UploadSpec { size_bytes: Some(PART as i64), ..spec("a.bin") };
        messages.send(spec_message(upload)).await.unwrap();
        messages.send(chunk(0, &pattern(PART))).await.unwrap();
        s.wait_until("the upload is being received", || async {
            s.read_metric("strongroom_shares_in_use{resource=\"uploads\"}") > 0
        })
        .await;
        s.operator().set_read_only(&acme, true).await.unwrap();
        messages.send(finish(PART)).await.unwrap();
        drop(messages);
        assert_read_only(&response.await.unwrap().unwrap_err());
        assert_read_only(&alice.cancel_upload(&open).await.unwrap_err());
        s.operator().set_read_only(&acme, false).await.unwrap();
        alice.cancel_upload(&open).await.unwrap();
    });
}

#[test]
fn stale_replica_cannot_add_files() {
    service_test(|s| async move {
        let replica = s.start_replica(|_| {}).await;
        let alice = replica.alice();
        let id = file_id(&alice.upload(spec("a"), b"x").await.unwrap());
        // The replica has cached the tenant as writable.
        s.operator().set_read_only(&alice.tenant_id().await, true).await.unwrap();
        assert_read_only(&alice.upload(spec("b"), b"y").await.unwrap_err());
        assert_read_only(&alice.upload_version(&id, b"y").await.unwrap_err());
        assert_read_only(&alice.create_upload(spec("c")).await.unwrap_err());
        assert_eq!(alice.read(&id).await.unwrap(), b"x"[..]);
        replica.stop().await;
    });
}
