//! Every RPC with an `if_etag` rejects another etag, accepts the current one, and treats the etag as part of
//! the request that its request id identifies.

use std::pin::Pin;

use prost_types::FieldMask;
use strongroom::proto::{
    admin::v1::UpdateTenantRequest,
    v1::{
        ArchiveFileRequest, CreateCategoryRequest, CreateUploadRequest, DeleteCategoryRequest,
        DeleteFileRequest, DeleteFileVersionRequest, DownloadFileRequest, File, PurgeFileRequest, Quota,
        RestoreFileVersionRequest, UnarchiveFileRequest, UpdateCategoryRequest, UpdateFileRequest,
        UpdateQuotaRequest, UpdateWebhookRequest, UploadSpec, Visibility, Webhook,
    },
};
use tonic::{Code, Status};

use crate::{
    categories::category,
    harness::{Caller, PART, Service, file_id, pattern, reason, service_test, spec},
};

/// The parts of a request that the table below fills in.
#[derive(Clone)]
struct RequestFields {
    /// The id of the file or the webhook.
    id: String,
    tenant_id: String,
    if_etag: String,
    request_id: String,
}

type Call = fn(Caller, RequestFields) -> Pin<Box<dyn Future<Output = Result<(), Status>> + Send>>;

/// The resource whose etag an RPC compares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Resource {
    File,
    Archived,
    Policy,
    Quota,
    Webhook,
    Tenant,
}

fn mask(path: &str) -> Option<FieldMask> {
    Some(FieldMask { paths: vec![path.to_owned()] })
}

macro_rules! call {
    ($service:ident.$method:ident, |$fields:ident| $request:expr) => {
        |caller, $fields| Box::pin(async move { caller.$service.clone().$method($request).await.map(|_| ()) })
    };
}

/// Every RPC with an `if_etag`, except `UploadFile` and `DownloadFile`, which are streams.
const CALLS: &[(&str, Resource, Call)] = &[
    (
        "UpdateFile",
        Resource::File,
        call!(files.update_file, |fields| {
            let RequestFields { id, if_etag, request_id, .. } = fields;
            let file = Some(File { id, title: "new".to_owned(), ..File::default() });
            UpdateFileRequest { file, update_mask: mask("title"), if_etag, request_id }
        }),
    ),
    (
        "DeleteFile",
        Resource::File,
        call!(files.delete_file, |fields| {
            let RequestFields { id: file_id, if_etag, request_id, .. } = fields;
            DeleteFileRequest { file_id, if_etag, request_id }
        }),
    ),
    (
        "PurgeFile",
        Resource::File,
        call!(files.purge_file, |fields| {
            let RequestFields { id: file_id, if_etag, request_id, .. } = fields;
            PurgeFileRequest { file_id, if_etag, request_id }
        }),
    ),
    (
        "ArchiveFile",
        Resource::File,
        call!(files.archive_file, |fields| {
            let RequestFields { id: file_id, if_etag, request_id, .. } = fields;
            ArchiveFileRequest { file_id, if_etag, request_id }
        }),
    ),
    (
        "UnarchiveFile",
        Resource::Archived,
        call!(files.unarchive_file, |fields| {
            let RequestFields { id: file_id, if_etag, request_id, .. } = fields;
            UnarchiveFileRequest { file_id, if_etag, request_id }
        }),
    ),
    (
        "RestoreFileVersion",
        Resource::File,
        call!(files.restore_file_version, |fields| {
            let RequestFields { id: file_id, if_etag, request_id, .. } = fields;
            RestoreFileVersionRequest { file_id, version: 1, if_etag, request_id, ..Default::default() }
        }),
    ),
    (
        "DeleteFileVersion",
        Resource::File,
        call!(files.delete_file_version, |fields| {
            let RequestFields { id: file_id, if_etag, request_id, .. } = fields;
            DeleteFileVersionRequest { file_id, version: 1, if_etag, request_id }
        }),
    ),
    (
        "CreateUpload",
        Resource::File,
        call!(uploads.create_upload, |fields| {
            let RequestFields { id: file_id, if_etag, request_id, .. } = fields;
            let spec = UploadSpec { file_id, if_etag, request_id, ..UploadSpec::default() };
            CreateUploadRequest { spec: Some(spec), direct: false }
        }),
    ),
    (
        "CreateCategory",
        Resource::Policy,
        call!(policies.create_category, |fields| {
            let RequestFields { if_etag, request_id, .. } = fields;
            let category = Some(category("contracts", Visibility::Owner));
            CreateCategoryRequest { category, if_etag, request_id }
        }),
    ),
    (
        "UpdateCategory",
        Resource::Policy,
        call!(policies.update_category, |fields| {
            let RequestFields { if_etag, request_id, .. } = fields;
            let category = Some(category("report", Visibility::Owner));
            UpdateCategoryRequest { category, update_mask: mask("visibility"), if_etag, request_id }
        }),
    ),
    (
        "DeleteCategory",
        Resource::Policy,
        call!(policies.delete_category, |fields| {
            let RequestFields { if_etag, request_id, .. } = fields;
            DeleteCategoryRequest { name: "avatar".to_owned(), if_etag, request_id }
        }),
    ),
    (
        "UpdateQuota",
        Resource::Quota,
        call!(quotas.update_quota, |fields| {
            let RequestFields { if_etag, request_id, .. } = fields;
            let quota = Some(Quota { warning_percent: 50, ..Quota::default() });
            let update_mask = mask("warning_percent");
            UpdateQuotaRequest { quota, update_mask, if_etag, request_id, ..Default::default() }
        }),
    ),
    (
        "UpdateWebhook",
        Resource::Webhook,
        call!(webhooks.update_webhook, |fields| {
            let RequestFields { id, if_etag, request_id, .. } = fields;
            let webhook = Some(Webhook { id, description: "new".to_owned(), ..Webhook::default() });
            UpdateWebhookRequest { webhook, update_mask: mask("description"), if_etag, request_id }
        }),
    ),
    (
        "UpdateTenant",
        Resource::Tenant,
        call!(tenants.update_tenant, |fields| {
            let RequestFields { tenant_id, if_etag, request_id, .. } = fields;
            let (ceiling_bytes, update_mask) = (1 << 40, mask("ceiling_bytes"));
            UpdateTenantRequest {
                tenant_id,
                ceiling_bytes,
                update_mask,
                if_etag,
                request_id,
                ..Default::default()
            }
        }),
    ),
];

/// Creates a resource. Returns a caller who may change it, and the request fields with its current etag.
async fn prepare(s: &Service, resource: Resource, number: u128) -> (Caller, RequestFields) {
    let ada = s.ada();
    let tenant_id = ada.tenant_id().await;
    let (caller, id, if_etag) = match resource {
        Resource::File | Resource::Archived => {
            let id = file_id(&ada.upload(spec("a"), b"one").await.unwrap());
            ada.upload_version(&id, b"two").await.unwrap();
            if resource == Resource::Archived {
                ada.archive(&id).await.unwrap();
            }
            let etag = ada.get(&id).await.unwrap().etag;
            (ada, id, etag)
        }
        Resource::Policy => {
            let etag = ada.policy().await.unwrap().etag;
            (ada, String::new(), etag)
        }
        Resource::Quota => {
            let etag = ada.quota().await.unwrap().etag;
            (ada, String::new(), etag)
        }
        Resource::Webhook => {
            let (id, _) = s.create_webhook_to("https://hooks.example.org/").await;
            let etag = s.get_webhook(&id).await.etag;
            (ada, id, etag)
        }
        Resource::Tenant => {
            let etag = ada.quota().await.unwrap().etag;
            (s.operator(), String::new(), etag)
        }
    };
    (caller, RequestFields { id, tenant_id, if_etag, request_id: uuid::Uuid::from_u128(number).to_string() })
}

fn assert_mismatch(outcome: Result<(), Status>, about: &str) {
    let error = outcome.expect_err(about);
    let got = (error.code(), reason(&error));
    assert_eq!(got, (Code::Aborted, "ETAG_MISMATCH".to_owned()), "{about}");
}

#[test]
fn if_etag_is_compared_and_part_of_the_request() {
    service_test(|s| async move {
        for (number, (name, resource, call)) in (1..).zip(CALLS) {
            let (caller, fields) = prepare(&s, *resource, number).await;
            let stale = RequestFields { if_etag: "0-0".to_owned(), ..fields.clone() };
            assert_mismatch(call(caller.clone(), stale).await, name);
            call(caller.clone(), fields.clone()).await.unwrap_or_else(|status| panic!("{name}: {status:?}"));
            // The resource has another etag now, but a retry returns the first response.
            call(caller.clone(), fields.clone()).await.unwrap_or_else(|status| panic!("{name}: {status:?}"));
            let other = RequestFields { if_etag: String::new(), ..fields };
            assert_eq!(reason(&call(caller, other).await.unwrap_err()), "REQUEST_ID_REUSED", "{name}");
        }
        for upload in s.ada().list_upload_ids(10).await {
            s.ada().cancel_upload(&upload).await.unwrap();
        }
    });
}

#[test]
fn version_upload_compares_if_etag_at_start_and_commit() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = file_id(&alice.upload(spec("a"), b"one").await.unwrap());
        let version = |if_etag: String| UploadSpec { file_id: id.clone(), if_etag, ..UploadSpec::default() };
        let read = alice.get(&id).await.unwrap().etag;
        assert_mismatch(alice.upload(version("0-0".to_owned()), b"two").await.map(|_| ()), "at the start");

        let data = pattern(PART + 1);
        let upload = alice.create_upload(version(read.clone())).await.unwrap();
        alice.rename(&id, "b").await.unwrap();
        assert_mismatch(alice.resume_upload(&upload.id, &data, 0, true).await.map(|_| ()), "at the commit");
        s.wait_until("the reservation is released", || async {
            alice.quota().await.unwrap().reserved_bytes == 0
        })
        .await;
        assert_mismatch(alice.upload(version(read), b"two").await.map(|_| ()), "the former etag");

        let present = alice.get(&id).await.unwrap().etag;
        alice.upload(version(present), b"two").await.unwrap();
        assert_eq!(alice.read(&id).await.unwrap(), b"two"[..]);
        let new = UploadSpec { if_etag: "1-1".to_owned(), ..spec("new") };
        let refused = alice.upload(new, b"x").await.unwrap_err();
        assert_eq!(crate::harness::violated_fields(&refused), ["spec.if_etag"]);
    });
}

#[test]
fn one_of_concurrent_versions_with_same_etag_is_committed() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = file_id(&alice.upload(spec("a"), b"one").await.unwrap());
        let if_etag = alice.get(&id).await.unwrap().etag;
        let uploads = (0..8).map(|n: u8| {
            let spec = UploadSpec { file_id: id.clone(), if_etag: if_etag.clone(), ..UploadSpec::default() };
            let alice = alice.clone();
            async move { alice.upload(spec, &[n]).await.map(|_| ()) }
        });
        let outcomes = futures::future::join_all(uploads).await;
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
        for refused in outcomes.into_iter().filter(Result::is_err) {
            assert_mismatch(refused, "a later one");
        }
        assert_eq!(alice.get(&id).await.unwrap().version, 2);
    });
}

#[test]
fn download_compares_only_the_content() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = file_id(&alice.upload(spec("a"), b"one").await.unwrap());
        let if_etag = alice.get(&id).await.unwrap().etag;
        let request = DownloadFileRequest { file_id: id.clone(), if_etag, ..Default::default() };
        alice.rename(&id, "b").await.unwrap();
        assert_eq!(alice.download(request.clone()).await.unwrap().bytes, b"one");
        alice.upload_version(&id, b"two").await.unwrap();
        assert_mismatch(alice.download(request).await.map(|_| ()), "another content");
    });
}
