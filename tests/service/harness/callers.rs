//! Callers and the RPCs that they call. A method named by a verb alone acts on a file.
//!
//! - acme: alice and bob are members, maria is a manager, ada is an admin, billing and cashier are
//!   services, and cashier may change credits.
//! - globex: mallory is a member, gus is an admin.
//! - school (preset `education`): pupil and friend are students, whose role is member; teacher is a manager;
//!   head is an admin. friend and teacher are in group 7a.
//! - The operator belongs to no tenant.

use bytes::Bytes;
use strongroom::{
    client::{Client, ClientOptions},
    domain::clock::Clock,
    proto::v1::{
        ArchiveFileRequest, BatchDeleteFilesRequest, CancelUploadRequest, CompleteUploadRequest,
        CopyFileRequest, CreateUploadRequest, DeleteFileRequest, DeleteFileVersionRequest,
        DownloadFileRequest, DownloadHeader, File, FileVersion, GetFileRequest, GetQuotaRequest,
        GetUploadRequest, GetUsageRequest, GetUsageResponse, ListFileVersionsRequest, ListFilesRequest,
        ListFilesResponse, ListUploadsRequest, PurgeFileRequest, Quota, ReleaseLegalHoldRequest,
        RestoreFileVersionRequest, SetLegalHoldRequest, UnarchiveFileRequest, UndeleteFileRequest,
        UpdateFileRequest, UpdateQuotaRequest, Upload, UploadFileRequest, UploadFileResponse,
        UploadPartRequest, UploadSpec, download_file_response::Message,
        event_service_client::EventServiceClient, file_service_client::FileServiceClient,
        import_service_client::ImportServiceClient, quota_service_client::QuotaServiceClient,
        service_info_service_client::ServiceInfoServiceClient, share_service_client::ShareServiceClient,
        upload_service_client::UploadServiceClient, webhook_service_client::WebhookServiceClient,
    },
    proto::{
        admin::v1::tenant_service_client::TenantServiceClient, v1::policy_service_client::PolicyServiceClient,
    },
};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};
use tonic_types::StatusExt;

use super::{
    Inner, SCHOOL, Service,
    messages::{crc32c, resume_messages, upload_messages},
    tokens::{Identity, token},
};

/// A caller with its token, if it has one, and a gRPC client for each service.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) identity: Identity,
    pub(crate) token: String,
    pub(crate) files: FileServiceClient<InterceptedService<Channel, Bearer>>,
    pub(crate) uploads: UploadServiceClient<InterceptedService<Channel, Bearer>>,
    pub(crate) imports: ImportServiceClient<InterceptedService<Channel, Bearer>>,
    pub(crate) events: EventServiceClient<InterceptedService<Channel, Bearer>>,
    pub(crate) quotas: QuotaServiceClient<InterceptedService<Channel, Bearer>>,
    pub(crate) policies: PolicyServiceClient<InterceptedService<Channel, Bearer>>,
    pub(crate) tenants: TenantServiceClient<InterceptedService<Channel, Bearer>>,
    pub(crate) webhooks: WebhookServiceClient<InterceptedService<Channel, Bearer>>,
    pub(crate) shares: ShareServiceClient<InterceptedService<Channel, Bearer>>,
    pub(crate) service_info: ServiceInfoServiceClient<InterceptedService<Channel, Bearer>>,
    address: String,
}

/// Adds the token to every call.
#[derive(Clone)]
pub(crate) struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

#[derive(Debug)]
pub(crate) struct Download {
    pub(crate) header: DownloadHeader,
    pub(crate) bytes: Vec<u8>,
    pub(crate) chunks: usize,
}

impl Inner {
    /// Creates a caller whose token expires after one hour of the test clock.
    pub(crate) fn caller(&self, identity: Identity) -> Caller {
        let token = token(&identity, self.clock.now());
        self.caller_with_token(identity, &token)
    }

    /// Creates a caller with this token, or without credentials if `token` is empty.
    pub(crate) fn caller_with_token(&self, identity: Identity, token: &str) -> Caller {
        let value = (!token.is_empty()).then(|| format!("Bearer {token}").parse().unwrap());
        let bearer = Bearer(value);
        let bytes_max = 64 * 1024 * 1024;
        Caller {
            identity,
            token: token.to_owned(),
            files: FileServiceClient::with_interceptor(self.channel.clone(), bearer.clone())
                .max_decoding_message_size(bytes_max),
            uploads: UploadServiceClient::with_interceptor(self.channel.clone(), bearer.clone())
                .max_decoding_message_size(bytes_max),
            imports: ImportServiceClient::with_interceptor(self.channel.clone(), bearer.clone()),
            events: EventServiceClient::with_interceptor(self.channel.clone(), bearer.clone()),
            quotas: QuotaServiceClient::with_interceptor(self.channel.clone(), bearer.clone()),
            policies: PolicyServiceClient::with_interceptor(self.channel.clone(), bearer.clone()),
            tenants: TenantServiceClient::with_interceptor(self.channel.clone(), bearer.clone()),
            webhooks: WebhookServiceClient::with_interceptor(self.channel.clone(), bearer.clone()),
            shares: ShareServiceClient::with_interceptor(self.channel.clone(), bearer.clone()),
            service_info: ServiceInfoServiceClient::with_interceptor(self.channel.clone(), bearer),
            address: self.address.clone(),
        }
    }

    /// Creates a caller in an organization.
    pub(crate) fn member(&self, user: &str, organization: &str, role: &str, groups: &[&str]) -> Caller {
        self.caller(Identity {
            user: user.to_owned(),
            organization: Some(organization.to_owned()),
            role: Some(role.to_owned()),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            ..Identity::default()
        })
    }
}

impl Service {
    pub(crate) fn alice(&self) -> Caller {
        self.member("alice", "acme", "member", &[])
    }

    pub(crate) fn bob(&self) -> Caller {
        self.member("bob", "acme", "member", &[])
    }

    pub(crate) fn maria(&self) -> Caller {
        self.member("maria", "acme", "manager", &[])
    }

    pub(crate) fn ada(&self) -> Caller {
        self.member("ada", "acme", "admin", &[])
    }

    pub(crate) fn billing(&self) -> Caller {
        self.caller(Identity {
            user: "billing".to_owned(),
            organization: Some("acme".to_owned()),
            role: Some("member".to_owned()),
            kind: Some("service".to_owned()),
            ..Identity::default()
        })
    }

    /// Returns the service of acme whose token may change credits.
    pub(crate) fn cashier(&self) -> Caller {
        self.caller(Identity {
            user: "cashier".to_owned(),
            organization: Some("acme".to_owned()),
            role: Some("member".to_owned()),
            kind: Some("service".to_owned()),
            scope: Some("credits:write".to_owned()),
            ..Identity::default()
        })
    }

    pub(crate) fn mallory(&self) -> Caller {
        self.member("mallory", "globex", "member", &[])
    }

    pub(crate) fn gus(&self) -> Caller {
        self.member("gus", "globex", "admin", &[])
    }

    pub(crate) fn pupil(&self) -> Caller {
        self.member("pupil", SCHOOL, "student", &[])
    }

    pub(crate) fn friend(&self) -> Caller {
        self.member("friend", SCHOOL, "student", &["7a"])
    }

    pub(crate) fn teacher(&self) -> Caller {
        self.member("teacher", SCHOOL, "teacher", &["7a"])
    }

    pub(crate) fn head(&self) -> Caller {
        self.member("head", SCHOOL, "admin", &[])
    }

    /// Returns alice outside any organization, in her personal tenant.
    pub(crate) fn personal_alice(&self) -> Caller {
        self.caller(Identity { user: "alice".to_owned(), ..Identity::default() })
    }

    pub(crate) fn operator(&self) -> Caller {
        self.caller(Identity {
            user: "root".to_owned(),
            role: Some("operator".to_owned()),
            ..Identity::default()
        })
    }

    /// Returns a caller without credentials.
    pub(crate) fn anonymous(&self) -> Caller {
        self.caller_with_token(Identity::default(), "")
    }
}

impl Caller {
    /// Connects the client library with this caller's token.
    pub(crate) async fn connect_client(&self) -> Client {
        Client::connect(ClientOptions::new(self.address.clone(), self.token.clone().into())).await.unwrap()
    }

    /// Uploads with checksums. Chunk boundaries do not match part boundaries.
    pub(crate) async fn upload(&self, spec: UploadSpec, data: &[u8]) -> Result<UploadFileResponse, Status> {
        self.send_messages(upload_messages(spec, data, 40_000)).await
    }

    /// Sends messages of `UploadFile` and closes the stream.
    pub(crate) async fn send_messages(
        &self,
        messages: Vec<UploadFileRequest>,
    ) -> Result<UploadFileResponse, Status> {
        let mut files = self.files.clone();
        Ok(files.upload_file(futures::stream::iter(messages)).await?.into_inner())
    }

    /// Creates an upload whose bytes go through the service.
    pub(crate) async fn create_upload(&self, spec: UploadSpec) -> Result<Upload, Status> {
        let request = CreateUploadRequest { spec: Some(spec), direct: false };
        Ok(self.uploads.clone().create_upload(request).await?.into_inner().upload.unwrap())
    }

    pub(crate) async fn get_upload(&self, id: &str) -> Result<Upload, Status> {
        let request = GetUploadRequest { upload_id: id.to_owned(), with_urls: false };
        Ok(self.uploads.clone().get_upload(request).await?.into_inner().upload.unwrap())
    }

    /// Resumes an upload at offset `from`. `data` is the whole file. Sends the finish message if
    /// `is_finished`.
    pub(crate) async fn resume_upload(
        &self,
        id: &str,
        data: &[u8],
        from: usize,
        is_finished: bool,
    ) -> Result<UploadFileResponse, Status> {
        self.send_messages(resume_messages(id, data, from, is_finished)).await
    }

    /// Lists the ids of all open uploads that the caller can see, in pages of this size.
    pub(crate) async fn list_upload_ids(&self, page_size: i32) -> Vec<String> {
        let (mut ids, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListUploadsRequest { page_size, page_token };
            let page = self.uploads.clone().list_uploads(request).await.unwrap().into_inner();
            assert!(page.uploads.len() <= page_size as usize);
            ids.extend(page.uploads.into_iter().map(|upload| upload.id));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return ids;
            }
        }
    }

    pub(crate) async fn cancel_upload(&self, id: &str) -> Result<(), Status> {
        let request = CancelUploadRequest { upload_id: id.to_owned(), request_id: String::new() };
        self.uploads.clone().cancel_upload(request).await.map(|_| ())
    }

    pub(crate) async fn upload_part(&self, id: &str, offset: usize, data: &[u8]) -> Result<Upload, Status> {
        let request = UploadPartRequest {
            upload_id: id.to_owned(),
            offset: offset as i64,
            data: Bytes::copy_from_slice(data),
            crc32c: Some(crc32c(data)),
        };
        Ok(self.uploads.clone().upload_part(request).await?.into_inner().upload.unwrap())
    }

    pub(crate) async fn complete_upload(&self, id: &str, size: usize) -> Result<File, Status> {
        let request = CompleteUploadRequest {
            upload_id: id.to_owned(),
            size_bytes: Some(size as i64),
            ..CompleteUploadRequest::default()
        };
        Ok(self.uploads.clone().complete_upload(request).await?.into_inner().file.unwrap())
    }

    /// Downloads and checks the offset and the checksum of each chunk.
    pub(crate) async fn download(&self, request: DownloadFileRequest) -> Result<Download, Status> {
        let mut stream = self.files.clone().download_file(request).await?.into_inner();
        let Some(Message::Header(header)) = stream.message().await?.unwrap().message else {
            panic!("the first message is not the header")
        };
        let mut downloaded = Download { header, bytes: Vec::new(), chunks: 0 };
        let first = downloaded.header.range.unwrap().offset;
        while let Some(message) = stream.message().await? {
            let Some(Message::Chunk(chunk)) = message.message else {
                panic!("a message after the header is not a chunk")
            };
            assert_eq!(chunk.offset, first + downloaded.bytes.len() as i64);
            assert_eq!(chunk.crc32c, crc32c(&chunk.data));
            assert!(!chunk.data.is_empty() && chunk.data.len() <= 1024 * 1024);
            downloaded.bytes.extend_from_slice(&chunk.data);
            downloaded.chunks += 1;
        }
        Ok(downloaded)
    }

    /// Downloads the whole current version.
    pub(crate) async fn read(&self, id: &str) -> Result<Bytes, Status> {
        let request = DownloadFileRequest { file_id: id.to_owned(), ..DownloadFileRequest::default() };
        Ok(self.download(request).await?.bytes.into())
    }

    pub(crate) async fn get(&self, id: &str) -> Result<File, Status> {
        let response = self.files.clone().get_file(GetFileRequest { file_id: id.to_owned() }).await?;
        Ok(response.into_inner().file.unwrap())
    }

    pub(crate) async fn list(&self, request: ListFilesRequest) -> Result<ListFilesResponse, Status> {
        Ok(self.files.clone().list_files(request).await?.into_inner())
    }

    /// Lists the names of all matching files, across all pages.
    pub(crate) async fn list_names(&self, mut request: ListFilesRequest) -> Vec<String> {
        let mut names = Vec::new();
        loop {
            let page = self.list(request.clone()).await.unwrap();
            names.extend(page.files.into_iter().map(|file| file.name));
            if page.next_page_token.is_empty() {
                return names;
            }
            request.page_token = page.next_page_token;
        }
    }

    pub(crate) async fn delete(&self, id: &str) -> Result<Option<File>, Status> {
        let request = DeleteFileRequest { file_id: id.to_owned(), ..DeleteFileRequest::default() };
        Ok(self.files.clone().delete_file(request).await?.into_inner().file)
    }

    pub(crate) async fn undelete(&self, id: &str) -> Result<File, Status> {
        let request = UndeleteFileRequest { file_id: id.to_owned(), request_id: String::new() };
        Ok(self.files.clone().undelete_file(request).await?.into_inner().file.unwrap())
    }

    /// Updates the fields in `paths`. If `file` has an etag, fails unless it is still the current one.
    pub(crate) async fn update(&self, file: File, paths: &[&str]) -> Result<File, Status> {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        let if_etag = file.etag.clone();
        let update_mask = Some(prost_types::FieldMask { paths });
        let request =
            UpdateFileRequest { file: Some(file), update_mask, if_etag, ..UpdateFileRequest::default() };
        Ok(self.files.clone().update_file(request).await?.into_inner().file.unwrap())
    }

    pub(crate) async fn rename(&self, id: &str, name: &str) -> Result<File, Status> {
        let file = File { id: id.to_owned(), name: name.to_owned(), ..File::default() };
        self.update(file, &["name"]).await
    }

    pub(crate) async fn archive(&self, id: &str) -> Result<File, Status> {
        let request = ArchiveFileRequest { file_id: id.to_owned(), ..ArchiveFileRequest::default() };
        Ok(self.files.clone().archive_file(request).await?.into_inner().file.unwrap())
    }

    pub(crate) async fn unarchive(&self, id: &str) -> Result<File, Status> {
        let request = UnarchiveFileRequest { file_id: id.to_owned(), ..UnarchiveFileRequest::default() };
        Ok(self.files.clone().unarchive_file(request).await?.into_inner().file.unwrap())
    }

    pub(crate) async fn copy(&self, request: CopyFileRequest) -> Result<File, Status> {
        Ok(self.files.clone().copy_file(request).await?.into_inner().file.unwrap())
    }

    pub(crate) async fn batch_delete(&self, ids: &[&str]) -> Result<Vec<File>, Status> {
        let file_ids = ids.iter().map(|id| (*id).to_owned()).collect();
        let request = BatchDeleteFilesRequest { file_ids, request_id: String::new() };
        Ok(self.files.clone().batch_delete_files(request).await?.into_inner().files)
    }

    pub(crate) async fn set_legal_hold(&self, id: &str, reason: &str) -> Result<File, Status> {
        let (file_id, reason) = (id.to_owned(), reason.to_owned());
        let request = SetLegalHoldRequest { file_id, reason, request_id: String::new() };
        Ok(self.files.clone().set_legal_hold(request).await?.into_inner().file.unwrap())
    }

    pub(crate) async fn release_legal_hold(&self, id: &str, reason: &str) -> Result<File, Status> {
        let (file_id, reason) = (id.to_owned(), reason.to_owned());
        let request = ReleaseLegalHoldRequest { file_id, reason, request_id: String::new() };
        Ok(self.files.clone().release_legal_hold(request).await?.into_inner().file.unwrap())
    }

    pub(crate) async fn upload_version(&self, id: &str, data: &[u8]) -> Result<File, Status> {
        let spec = UploadSpec { file_id: id.to_owned(), ..UploadSpec::default() };
        Ok(self.upload(spec, data).await?.file.unwrap())
    }

    /// Lists all versions, newest first, across all pages.
    pub(crate) async fn list_versions(&self, id: &str, page_size: i32) -> Result<Vec<FileVersion>, Status> {
        let mut request =
            ListFileVersionsRequest { file_id: id.to_owned(), page_size, page_token: String::new() };
        let mut versions = Vec::new();
        loop {
            let page = self.files.clone().list_file_versions(request.clone()).await?.into_inner();
            versions.extend(page.versions);
            if page.next_page_token.is_empty() {
                return Ok(versions);
            }
            request.page_token = page.next_page_token;
        }
    }

    pub(crate) async fn restore_version(&self, id: &str, version: i32) -> Result<File, Status> {
        let request = RestoreFileVersionRequest {
            file_id: id.to_owned(),
            version,
            ..RestoreFileVersionRequest::default()
        };
        Ok(self.files.clone().restore_file_version(request).await?.into_inner().file.unwrap())
    }

    pub(crate) async fn delete_version(&self, id: &str, version: i32) -> Result<File, Status> {
        let request = DeleteFileVersionRequest {
            file_id: id.to_owned(),
            version,
            ..DeleteFileVersionRequest::default()
        };
        Ok(self.files.clone().delete_file_version(request).await?.into_inner().file.unwrap())
    }

    /// Downloads one whole version.
    pub(crate) async fn read_version(&self, id: &str, version: i32) -> Result<Bytes, Status> {
        let request =
            DownloadFileRequest { file_id: id.to_owned(), version, ..DownloadFileRequest::default() };
        Ok(self.download(request).await?.bytes.into())
    }

    pub(crate) async fn purge(&self, id: &str) -> Result<(), Status> {
        let request = PurgeFileRequest { file_id: id.to_owned(), ..PurgeFileRequest::default() };
        self.files.clone().purge_file(request).await.map(|_| ())
    }

    pub(crate) async fn quota(&self) -> Result<Quota, Status> {
        let response = self.quotas.clone().get_quota(GetQuotaRequest::default()).await?;
        Ok(response.into_inner().quota.unwrap())
    }

    pub(crate) async fn usage(&self) -> Result<GetUsageResponse, Status> {
        Ok(self.quotas.clone().get_usage(GetUsageRequest::default()).await?.into_inner())
    }

    pub(crate) async fn update_quota(
        &self,
        tenant_id: &str,
        quota: Quota,
        paths: &[&str],
    ) -> Result<Quota, Status> {
        let request = UpdateQuotaRequest {
            if_etag: quota.etag.clone(),
            quota: Some(quota),
            update_mask: Some(prost_types::FieldMask {
                paths: paths.iter().map(|path| (*path).to_owned()).collect(),
            }),
            tenant_id: tenant_id.to_owned(),
            ..UpdateQuotaRequest::default()
        };
        Ok(self.quotas.clone().update_quota(request).await?.into_inner().quota.unwrap())
    }

    /// Sets the byte limit of the caller's own tenant. Panics if the caller is not an admin.
    pub(crate) async fn set_limit_bytes(&self, limit_bytes: i64) {
        let quota = Quota { limit_bytes, ..Quota::default() };
        self.update_quota("", quota, &["limit_bytes"]).await.unwrap();
    }

    pub(crate) async fn tenant_id(&self) -> String {
        self.quota().await.unwrap().tenant_id
    }
}

/// Returns the error reason in the `ErrorInfo` of a status.
pub(crate) fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    assert_eq!(info.domain, "strongroom");
    info.reason.clone()
}

/// Returns the fields in the `BadRequest` of a status.
pub(crate) fn violated_fields(status: &Status) -> Vec<String> {
    let details = status.get_error_details();
    let violations = details.bad_request().map(|bad| bad.field_violations.clone()).unwrap_or_default();
    violations.into_iter().map(|violation| violation.field).collect()
}
