//! Erasures for a legal duty: two operators, a reason, an end, and no effect on legal holds.

use std::collections::BTreeSet;

use chrono::Duration;
use strongroom::{
    app::tenants::erase,
    db::audit_entries::AuditAction,
    proto::admin::v1::{
        ApproveErasureRequest, Erasure, ListErasuresRequest, RequestErasureRequest, TenantState,
    },
};
use tonic::{Code, Status};

use crate::{
    harness::{Caller, Identity, Service, file_id, reason, service_test, spec, violated_fields},
    holds::attempt_deletion,
};

impl Caller {
    pub(crate) async fn request_erasure(
        &self,
        tenant: &str,
        file: &str,
        reason: &str,
    ) -> Result<Erasure, Status> {
        let request = RequestErasureRequest {
            tenant_id: tenant.to_owned(),
            file_id: file.to_owned(),
            reason: reason.to_owned(),
            ..RequestErasureRequest::default()
        };
        Ok(self.tenants.clone().request_erasure(request).await?.into_inner().erasure.unwrap())
    }

    pub(crate) async fn approve_erasure(&self, erasure: &Erasure) -> Result<Erasure, Status> {
        let request = ApproveErasureRequest {
            tenant_id: erasure.tenant_id.clone(),
            erasure_id: erasure.id.clone(),
            ..ApproveErasureRequest::default()
        };
        Ok(self.tenants.clone().approve_erasure(request).await?.into_inner().erasure.unwrap())
    }

    pub(crate) async fn list_erasures(&self, tenant: &str) -> Result<Vec<Erasure>, Status> {
        let request = ListErasuresRequest { tenant_id: tenant.to_owned() };
        Ok(self.tenants.clone().list_erasures(request).await?.into_inner().erasures)
    }
}

fn second_operator(s: &Service) -> Caller {
    s.caller(Identity { user: "olga".to_owned(), role: Some("operator".to_owned()), ..Identity::default() })
}

/// Uploads a file that is retained for 90 years. Returns its id.
async fn upload_retained_file(s: &Service) -> String {
    let id = file_id(&s.alice().upload(spec("a"), b"bytes").await.unwrap());
    s.superuser.execute("UPDATE files SET retain_until_time = now() + interval '90 years'").await;
    id
}

#[test]
fn approved_erasure_lets_the_owner_purge_the_file() {
    service_test(|s| async move {
        let id = upload_retained_file(&s).await;
        let other = file_id(&s.bob().upload(spec("b"), b"other").await.unwrap());
        s.superuser.execute("UPDATE files SET retain_until_time = now() + interval '90 years'").await;
        let (acme, root, olga) = (s.alice().tenant_id().await, s.operator(), second_operator(&s));
        for unclear in ["", "two\nlines"] {
            let error = root.request_erasure(&acme, &id, unclear).await.unwrap_err();
            assert_eq!(violated_fields(&error), ["reason"]);
        }
        let erasure = root.request_erasure(&acme, &id, "GDPR article 17, case 8").await.unwrap();
        assert_eq!(reason(&s.alice().purge(&id).await.unwrap_err()), "FILE_RETAINED", "not approved yet");

        let own = root.approve_erasure(&erasure).await.unwrap_err();
        assert_eq!((own.code(), reason(&own).as_str()), (Code::PermissionDenied, "NOT_ALLOWED"));
        let approved = olga.approve_erasure(&erasure).await.unwrap();
        assert_eq!((approved.requested_by.as_str(), approved.approved_by.as_str()), ("root", "olga"));
        assert_eq!(reason(&s.bob().purge(&other).await.unwrap_err()), "FILE_RETAINED", "another file");
        assert_eq!(reason(&root.delete_tenant(&acme, false).await.unwrap_err()), "TENANT_RETAINED");
        s.alice().purge(&id).await.unwrap();
        assert!(root.list_erasures(&acme).await.unwrap()[0].use_time.is_some());

        let audited = "SELECT count(*) FROM audit_entries WHERE details -> 'erasure' ->> 'id' IS NOT NULL
            AND action IN ({audit_action.erasure_request}, {audit_action.erasure_approve}, {audit_action.file_purge})";
        assert_eq!(s.superuser.query_number(audited).await, 4, "request, denial, approval and purge");
        let named = "SELECT format('%s|%s|%s', action, details #>> '{erasure,requested_by,subject}',
                details #>> '{erasure,approved_by,subject}')
            FROM audit_entries WHERE details #>> '{erasure,requested_by,issuer}' = 'https://id.example.org'
                AND coalesce(details #>> '{erasure,approved_by,issuer}', 'https://id.example.org')
                    = 'https://id.example.org'";
        let named: BTreeSet<String> = s.superuser.query_texts(named).await.into_iter().collect();
        let expected = [
            (AuditAction::ErasureRequest, ""),
            (AuditAction::ErasureApprove, ""),
            (AuditAction::ErasureApprove, "olga"),
            (AuditAction::FilePurge, "olga"),
        ];
        let expected = expected.map(|(action, approver)| format!("{}|root|{approver}", action.number()));
        assert_eq!(named, BTreeSet::from(expected), "request, denial, approval and purge name both");
    });
}

#[test]
fn erasure_overrides_no_legal_hold_and_expires() {
    service_test(|s| async move {
        let id = upload_retained_file(&s).await;
        let (acme, root, olga) = (s.alice().tenant_id().await, s.operator(), second_operator(&s));
        let of_file = root.request_erasure(&acme, &id, "case 8").await.unwrap();
        let of_tenant = root.request_erasure(&acme, "", "case 9").await.unwrap();
        for erasure in [&of_file, &of_tenant] {
            olga.approve_erasure(erasure).await.unwrap();
        }
        s.ada().set_legal_hold(&id, "lawsuit").await.unwrap();
        assert_eq!(reason(&s.alice().purge(&id).await.unwrap_err()), "FILE_RETAINED");
        assert_eq!(reason(&root.delete_tenant(&acme, false).await.unwrap_err()), "TENANT_RETAINED");
        // Nor does an erasure that is in use, in the database.
        s.superuser.execute_without_triggers("erasures", "UPDATE erasures SET use_time = approve_time").await;
        assert_eq!(attempt_deletion(&s).await, "protected_files");
        s.superuser.execute_without_triggers("erasures", "UPDATE erasures SET use_time = NULL").await;
        s.ada().release_legal_hold(&id, "settled").await.unwrap();

        s.clock.advance(Duration::days(8));
        let (root, olga) = (s.operator(), second_operator(&s));
        assert_eq!(reason(&s.alice().purge(&id).await.unwrap_err()), "FILE_RETAINED");
        assert_eq!(reason(&root.delete_tenant(&acme, false).await.unwrap_err()), "TENANT_RETAINED");
        assert_eq!(olga.approve_erasure(&of_file).await.unwrap_err().code(), Code::NotFound);
    });
}

#[test]
fn approved_erasure_deletes_a_tenant_with_retained_files() {
    service_test(|s| async move {
        upload_retained_file(&s).await;
        let (acme, root) = (s.alice().tenant_id().await, s.operator());
        let erasure = root.request_erasure(&acme, "", "GDPR article 17").await.unwrap();
        assert_eq!(reason(&root.delete_tenant(&acme, false).await.unwrap_err()), "TENANT_RETAINED");
        second_operator(&s).approve_erasure(&erasure).await.unwrap();
        root.delete_tenant(&acme, false).await.unwrap();
        // The erasure may expire while the tenant is being erased.
        s.clock.advance(Duration::days(8));
        crate::tenants::erase_all_tenants(&s).await;
        assert_eq!(s.operator().get_tenant(&acme).await.unwrap().state(), TenantState::Deleted);
        for table in ["files", "erasures"] {
            assert_eq!(
                s.superuser.query_number(&format!("SELECT count(*) FROM {table}")).await,
                0,
                "{table}"
            );
        }
        assert_eq!(erase::erase_deleting_tenants(&s.app).await.unwrap().done, 0);
        let started = "SELECT count(*) FROM audit_entries
            WHERE action = {audit_action.tenant_delete} AND details ->> 'step' = 'started'
              AND details #>> '{erasure,requested_by,subject}' = 'root'
              AND details #>> '{erasure,approved_by,subject}' = 'olga'";
        assert_eq!(s.superuser.query_number(started).await, 1);
    });
}

#[test]
fn members_cannot_reach_erasures() {
    service_test(|s| async move {
        let id = upload_retained_file(&s).await;
        let acme = s.alice().tenant_id().await;
        for caller in [s.alice(), s.ada()] {
            let error = caller.request_erasure(&acme, &id, "because").await.unwrap_err();
            assert_eq!(error.code(), Code::PermissionDenied);
        }
    });
}

#[test]
fn deleted_tenants_have_no_new_erasures() {
    service_test(|s| async move {
        let id = file_id(&s.alice().upload(spec("a"), b"bytes").await.unwrap());
        let (acme, root) = (s.alice().tenant_id().await, s.operator());
        let erasure = root.request_erasure(&acme, &id, "case 8").await.unwrap();
        root.suspend_tenant(&acme).await.unwrap();
        root.request_erasure(&acme, "", "case 9").await.unwrap();
        root.delete_tenant(&acme, false).await.unwrap();
        for error in [
            root.request_erasure(&acme, "", "case 10").await.unwrap_err(),
            second_operator(&s).approve_erasure(&erasure).await.unwrap_err(),
        ] {
            assert_eq!((error.code(), reason(&error).as_str()), (Code::FailedPrecondition, "TENANT_DELETED"));
        }
        crate::tenants::erase_all_tenants(&s).await;
        let error = root.request_erasure(&acme, "", "case 11").await.unwrap_err();
        assert_eq!(reason(&error), "TENANT_DELETED");
    });
}
