//! `TenantService`: creation, listing, quota ceilings, suspension and resumption of tenants.

use std::collections::BTreeMap;

use chrono::Duration;
use strongroom::{
    app::{integrity::delete_stray_objects::delete_stray_objects, tenants::erase},
    proto::admin::v1::{
        CreateTenantRequest, DeleteTenantRequest, DeleteTenantResponse, ExportTenantRequest,
        GetTenantRequest, ListTenantsRequest, ResumeTenantRequest, SuspendTenantRequest, Tenant, TenantKind,
        TenantState, UpdateTenantRequest, export_tenant_response::Record,
    },
    proto::v1::{EntityRef, ListFilesRequest, UploadSpec},
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::harness::{
    Caller, PART, Service, chunk, file_id, finish, reason, service_test, service_test_with, spec,
    spec_message, violated_fields,
};

const ISSUER: &str = "https://id.example.org";

pub(crate) fn new_tenant(external_id: &str) -> CreateTenantRequest {
    CreateTenantRequest {
        kind: TenantKind::Organization.into(),
        issuer: ISSUER.to_owned(),
        external_id: external_id.to_owned(),
        ..CreateTenantRequest::default()
    }
}

impl Caller {
    pub(crate) async fn create_tenant(&self, request: CreateTenantRequest) -> Result<Tenant, Status> {
        Ok(self.tenants.clone().create_tenant(request).await?.into_inner().tenant.unwrap())
    }

    pub(crate) async fn get_tenant(&self, id: &str) -> Result<Tenant, Status> {
        let request = GetTenantRequest { tenant_id: id.to_owned() };
        Ok(self.tenants.clone().get_tenant(request).await?.into_inner().tenant.unwrap())
    }

    pub(crate) async fn suspend_tenant(&self, id: &str) -> Result<Tenant, Status> {
        let request = SuspendTenantRequest {
            tenant_id: id.to_owned(),
            reason: "unpaid".to_owned(),
            ..Default::default()
        };
        Ok(self.tenants.clone().suspend_tenant(request).await?.into_inner().tenant.unwrap())
    }

    pub(crate) async fn resume_tenant(&self, id: &str) -> Result<Tenant, Status> {
        let request = ResumeTenantRequest { tenant_id: id.to_owned(), ..Default::default() };
        Ok(self.tenants.clone().resume_tenant(request).await?.into_inner().tenant.unwrap())
    }

    pub(crate) async fn delete_tenant(
        &self,
        id: &str,
        dry_run: bool,
    ) -> Result<DeleteTenantResponse, Status> {
        let request = DeleteTenantRequest { tenant_id: id.to_owned(), dry_run, ..Default::default() };
        Ok(self.tenants.clone().delete_tenant(request).await?.into_inner())
    }

    pub(crate) async fn export_tenant(&self, id: &str) -> Result<Vec<Record>, Status> {
        let request = ExportTenantRequest { tenant_id: id.to_owned() };
        let mut stream = self.tenants.clone().export_tenant(request).await?.into_inner();
        let mut records = Vec::new();
        while let Some(message) = stream.message().await? {
            records.push(message.record.unwrap());
        }
        Ok(records)
    }
}

/// Calls several methods, which must all fail. Returns their codes and reasons.
pub(crate) async fn call_methods_refused(caller: &Caller, id: &str) -> Vec<(Code, String)> {
    let code_and_reason = |status: Status| (status.code(), reason(&status));
    vec![
        code_and_reason(caller.get(id).await.unwrap_err()),
        code_and_reason(caller.read(id).await.unwrap_err()),
        code_and_reason(caller.list(ListFilesRequest::default()).await.unwrap_err()),
        code_and_reason(caller.quota().await.unwrap_err()),
        code_and_reason(caller.policy().await.unwrap_err()),
        code_and_reason(caller.delete(id).await.unwrap_err()),
        code_and_reason(caller.upload(spec("b"), b"x").await.unwrap_err()),
    ]
}

/// Runs background work until deleting tenants are erased.
pub(crate) async fn erase_all_tenants(s: &Service) {
    for _ in 0..1_000 {
        if erase::erase_deleting_tenants(&s.app).await.unwrap().done
            + delete_stray_objects(&s.app).await.unwrap().done
            == 0
        {
            return;
        }
    }
    panic!("the deletion did not end");
}

/// Returns the number of rows of a tenant in each table that has any.
pub(crate) async fn count_rows_by_table(s: &Service, tenant: &str) -> BTreeMap<String, i64> {
    let tables = "SELECT c.relname::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
                  WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attname = 'tenant_id'";
    let mut rows = BTreeMap::new();
    for table in s.superuser.query_texts(tables).await {
        let count = s
            .superuser
            .query_number(&format!("SELECT count(*) FROM {table} WHERE tenant_id = '{tenant}'"))
            .await;
        if count > 0 {
            rows.insert(table, count);
        }
    }
    rows
}

/// Fills the tenant of alice with rows of many kinds. Returns the id of an available file.
pub(crate) async fn create_tenant_content(s: &Service) -> String {
    let attachments = vec![EntityRef { r#type: "course".into(), id: "42".into(), field: String::new() }];
    let detailed = UploadSpec {
        tags: vec!["a".to_owned()],
        attachments,
        request_id: uuid::Uuid::from_u128(1).to_string(),
        ..spec("small")
    };
    let small = file_id(&s.alice().upload(detailed, b"12345").await.unwrap());
    let large = file_id(&s.alice().upload(spec("large"), &vec![7; 3 * PART]).await.unwrap());
    let purged = file_id(&s.alice().upload(spec("purged"), b"123").await.unwrap());
    s.alice().read(&small).await.unwrap();
    s.alice().delete(&large).await.unwrap();
    s.alice().purge(&purged).await.unwrap();
    small
}

#[test]
fn tenant_created_by_operator_is_usable() {
    service_test_with(
        |config| config.tenants.create_on_first_use = false,
        |s| async move {
            let olga = s.member("olga", "newco", "member", &[]);
            assert_eq!(olga.quota().await.unwrap_err().code(), Code::PermissionDenied);
            let request = CreateTenantRequest {
                preset: "education".to_owned(),
                ceiling_bytes: Some(1_000),
                request_id: uuid::Uuid::from_u128(7).to_string(),
                ..new_tenant("newco")
            };
            let created = s.operator().create_tenant(request.clone()).await.unwrap();
            assert_eq!((created.preset.as_str(), created.state()), ("education", TenantState::Active));
            let quota = olga.quota().await.unwrap();
            assert_eq!((quota.tenant_id, quota.limit_bytes), (created.id.clone(), 1_000));
            assert_eq!((quota.ceiling_bytes, quota.ceiling_file_count), (1_000, 10_000));
            assert_eq!(olga.policy().await.unwrap().preset, "education");

            assert_eq!(s.operator().create_tenant(request.clone()).await.unwrap(), created, "a retry");
            let other = CreateTenantRequest { ceiling_bytes: Some(2), ..request };
            assert_eq!(reason(&s.operator().create_tenant(other).await.unwrap_err()), "REQUEST_ID_REUSED");
            let taken = s.operator().create_tenant(new_tenant("newco")).await.unwrap_err();
            assert_eq!((taken.code(), reason(&taken).as_str()), (Code::AlreadyExists, "TENANT_EXISTS"));
            assert_eq!(taken.get_details_error_info().unwrap().metadata["tenant_id"], created.id);
            let wrong = CreateTenantRequest {
                preset: "nonsense".to_owned(),
                ceiling_bytes: Some(-1),
                ..new_tenant("")
            };
            let wrong = s.operator().create_tenant(wrong).await.unwrap_err();
            assert_eq!(violated_fields(&wrong), ["external_id", "preset", "ceiling_bytes"]);
        },
    );
}

#[test]
fn operator_lists_tenants_and_changes_ceiling() {
    service_test(|s| async move {
        let operator = s.operator();
        let mut ids = Vec::new();
        for name in ["a", "b", "c"] {
            ids.push(operator.create_tenant(new_tenant(name)).await.unwrap().id);
        }
        let mut listed = Vec::new();
        let mut request = ListTenantsRequest { page_size: 2, ..Default::default() };
        loop {
            let page = operator.tenants.clone().list_tenants(request.clone()).await.unwrap().into_inner();
            listed.extend(page.tenants.into_iter().map(|tenant| tenant.id));
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        assert_eq!(listed, ids);
        let tenant = || UpdateTenantRequest { tenant_id: ids[0].clone(), ..Default::default() };
        let mask = |paths: &[&str]| {
            let paths = paths.iter().map(|path| (*path).to_owned()).collect();
            Some(prost_types::FieldMask { paths })
        };
        let request =
            UpdateTenantRequest { ceiling_bytes: 500, update_mask: mask(&["ceiling_bytes"]), ..tenant() };
        let updated = operator.tenants.clone().update_tenant(request).await.unwrap().into_inner();
        let quota = updated.quota.unwrap();
        assert_eq!(
            (quota.ceiling_bytes, quota.limit_bytes),
            (500, 500),
            "the limit is lowered to the ceiling"
        );
        for (paths, fields) in [
            (&[][..], &["update_mask"][..]),
            (&["limit_bytes"], &["update_mask.paths[0]"]),
            (&["ceiling_bytes", "ceiling_bytes"], &["update_mask.paths[1]"]),
        ] {
            let wrong = UpdateTenantRequest { update_mask: mask(paths), ..tenant() };
            let error = operator.tenants.clone().update_tenant(wrong).await.unwrap_err();
            assert_eq!(violated_fields(&error), fields);
        }
    });
}

#[test]
fn suspended_tenant_cannot_read_or_write() {
    service_test(|s| async move {
        let id = file_id(&s.alice().upload(spec("a"), b"x").await.unwrap());
        let (acme, operator) = (s.alice().tenant_id().await, s.operator());
        let suspended = operator.suspend_tenant(&acme).await.unwrap();
        assert_eq!((suspended.state(), suspended.state_reason.as_str()), (TenantState::Suspended, "unpaid"));
        for caller in [s.alice(), s.ada(), s.billing()] {
            for error in call_methods_refused(&caller, &id).await {
                assert_eq!(error, (Code::FailedPrecondition, "TENANT_SUSPENDED".to_owned()));
            }
        }
        assert!(s.mallory().quota().await.is_ok(), "other tenants are not affected");
        assert_eq!(
            operator.suspend_tenant(&acme).await.unwrap(),
            suspended,
            "a second suspension changes nothing"
        );

        assert_eq!(operator.resume_tenant(&acme).await.unwrap().state(), TenantState::Active);
        operator.resume_tenant(&acme).await.unwrap();
        assert_eq!(s.alice().read(&id).await.unwrap(), b"x"[..]);
        assert_eq!(
            s.superuser
                .query_number(
                    "SELECT count(*) FROM audit_entries
                WHERE action IN ({audit_action.tenant_suspend}, {audit_action.tenant_resume})"
                )
                .await,
            2
        );
    });
}

#[test]
fn suspension_reaches_replicas_in_10_seconds() {
    service_test(|s| async move {
        let other = s.start_replica(|_| {}).await;
        let id = file_id(&other.alice().upload(spec("a"), b"x").await.unwrap());
        let acme = s.alice().tenant_id().await;
        s.operator().suspend_tenant(&acme).await.unwrap();
        assert!(other.alice().get(&id).await.is_ok(), "the replica has the active tenant in its cache");
        for size in [1, 3 * PART] {
            let error = other.alice().upload(spec("b"), &vec![7; size]).await.unwrap_err();
            assert_eq!(reason(&error), "TENANT_SUSPENDED", "{size} bytes");
        }
        s.clock.advance(Duration::seconds(10));
        assert_eq!(reason(&other.alice().get(&id).await.unwrap_err()), "TENANT_SUSPENDED");
        s.operator().resume_tenant(&acme).await.unwrap();
        s.clock.advance(Duration::seconds(10));
        assert!(other.alice().get(&id).await.is_ok());
        other.stop().await;
        assert_eq!(
            s.store.list("", None, 10).await.unwrap().objects.len(),
            1,
            "the rejected uploads left no objects"
        );
    });
}

#[test]
fn upload_in_flight_fails_when_tenant_is_suspended() {
    service_test(|s| async move {
        let alice = s.alice();
        let acme = alice.tenant_id().await;
        let data = vec![7; 3 * PART];
        let (sender, messages) = futures::channel::mpsc::unbounded();
        sender.unbounded_send(spec_message(spec("a"))).unwrap();
        sender.unbounded_send(chunk(0, &data[..2 * PART])).unwrap();
        let mut files = alice.files.clone();
        let upload = tokio::spawn(async move { files.upload_file(messages).await });
        s.wait_until("the upload is open", || async {
            s.superuser.query_number("SELECT count(*) FROM uploads WHERE state = {upload_state.open}").await
                == 1
        })
        .await;
        s.operator().suspend_tenant(&acme).await.unwrap();
        for message in [chunk(2 * PART, &data[2 * PART..]), finish(data.len())] {
            // Fails if the service noticed the suspension and has ended the stream.
            let _ = sender.unbounded_send(message);
        }
        drop(sender);
        assert_eq!(reason(&upload.await.unwrap().unwrap_err()), "TENANT_SUSPENDED");
        s.assert_nothing_is_left().await;
    });
}

#[test]
fn retried_suspension_does_not_revert_resumption() {
    service_test(|s| async move {
        let (acme, operator) = (s.alice().tenant_id().await, s.operator());
        let request = SuspendTenantRequest {
            tenant_id: acme.clone(),
            request_id: uuid::Uuid::from_u128(7).to_string(),
            ..Default::default()
        };
        let first = operator.tenants.clone().suspend_tenant(request.clone()).await.unwrap().into_inner();
        operator.resume_tenant(&acme).await.unwrap();
        let again = operator.tenants.clone().suspend_tenant(request).await.unwrap().into_inner();
        assert_eq!(again, first);
        assert!(s.alice().quota().await.is_ok());
    });
}
