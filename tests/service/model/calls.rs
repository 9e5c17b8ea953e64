//! The mutations: what is asked, and how it is asked for.

use strongroom::proto::v1::{
    ArchiveFileRequest, BatchDeleteFilesRequest, CancelUploadRequest, CopyFileRequest, DeleteFileRequest,
    DeleteFileVersionRequest, File, PurgeFileRequest, Quota, RestoreFileVersionRequest, UnarchiveFileRequest,
    UndeleteFileRequest, UpdateFileRequest, UpdateQuotaRequest, Upload, UploadSpec,
};
use tonic::Status;

use super::dice::mix;
use crate::harness::{Caller, spec};

/// Bytes that are named by two numbers, so that a history can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) seed: u64,
    pub(super) len: usize,
}

impl Content {
    pub(super) fn bytes(self) -> Vec<u8> {
        let words = (0..self.len.div_ceil(8) as u64).map(|n| mix(self.seed.wrapping_add(n)));
        let mut bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).map(|byte| b'a' + byte % 26).collect();
        bytes.truncate(self.len);
        bytes
    }
}

/// One mutation. Files and uploads are named by their ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Call {
    Upload {
        name: String,
        content: Content,
        is_size_known: bool,
    },
    Version {
        file: String,
        content: Content,
        is_size_known: bool,
    },
    Create {
        name: String,
        content: Content,
        is_size_known: bool,
    },
    /// The bytes of an upload from one place up to another, with the finish or without.
    Send {
        upload: String,
        content: Content,
        from: usize,
        upto: usize,
        is_finished: bool,
    },
    Cancel {
        upload: String,
    },
    Delete {
        file: String,
    },
    Undelete {
        file: String,
    },
    Purge {
        file: String,
    },
    BatchDelete {
        files: Vec<String>,
    },
    Archive {
        file: String,
    },
    Unarchive {
        file: String,
    },
    Rename {
        file: String,
        name: String,
        etag: String,
    },
    Restore {
        file: String,
        version: i32,
    },
    DeleteVersion {
        file: String,
        version: i32,
    },
    Copy {
        file: String,
        version: i32,
        name: String,
    },
    Limit {
        bytes: i64,
    },
}

/// What came back.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// All of it, to be compared with the answer to a retry.
    pub(super) text: String,
    pub(super) files: Vec<File>,
    pub(super) upload: Option<Upload>,
}

impl Answer {
    fn of(message: &impl std::fmt::Debug, files: impl IntoIterator<Item = File>) -> Self {
        Self { text: format!("{message:?}"), files: files.into_iter().collect(), upload: None }
    }
}

impl Call {
    /// Its kind, as it is counted.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Upload { .. } => "upload",
            Self::Version { .. } => "version",
            Self::Create { .. } => "create upload",
            Self::Send { is_finished: false, .. } => "send",
            Self::Send { from: 0, .. } => "finish",
            Self::Send { .. } => "finish behind parts",
            Self::Cancel { .. } => "cancel",
            Self::Delete { .. } => "delete",
            Self::Undelete { .. } => "undelete",
            Self::Purge { .. } => "purge",
            Self::BatchDelete { .. } => "batch delete",
            Self::Archive { .. } => "archive",
            Self::Unarchive { .. } => "unarchive",
            Self::Rename { .. } => "rename",
            Self::Restore { .. } => "restore version",
            Self::DeleteVersion { .. } => "delete version",
            Self::Copy { .. } => "copy",
            Self::Limit { .. } => "limit",
        }
    }

    /// Asks for it.
    pub(super) async fn perform(self, caller: &Caller, request_id: String) -> Result<Answer, Status> {
        match self {
            Self::Upload { .. } | Self::Version { .. } | Self::Create { .. } | Self::Send { .. } => {
                self.transfer(caller, request_id).await
            }
            Self::Limit { bytes } => {
                let quota = Some(Quota { limit_bytes: bytes, ..Quota::default() });
                let update_mask = Some(prost_types::FieldMask { paths: vec!["limit_bytes".to_owned()] });
                let request = UpdateQuotaRequest {
                    quota,
                    update_mask,
                    request_id,
                    tenant_id: String::new(),
                    ..UpdateQuotaRequest::default()
                };
                let answer = caller.quotas.clone().update_quota(request).await?.into_inner();
                Ok(Answer::of(&answer, None))
            }
            other => other.change(caller, request_id).await,
        }
    }

    async fn transfer(self, caller: &Caller, request_id: String) -> Result<Answer, Status> {
        let told = |content: Content, is_known: bool| is_known.then_some(content.len as i64);
        match self {
            Self::Upload { name, content, is_size_known } => {
                let spec = UploadSpec { size_bytes: told(content, is_size_known), request_id, ..spec(&name) };
                let answer = caller.upload(spec, &content.bytes()).await?;
                Ok(Answer::of(&answer, answer.file.clone()))
            }
            Self::Version { file, content, is_size_known } => {
                let size_bytes = told(content, is_size_known);
                let spec = UploadSpec { size_bytes, request_id, file_id: file, ..UploadSpec::default() };
                let answer = caller.upload(spec, &content.bytes()).await?;
                Ok(Answer::of(&answer, answer.file.clone()))
            }
            Self::Create { name, content, is_size_known } => {
                let spec = UploadSpec { size_bytes: told(content, is_size_known), request_id, ..spec(&name) };
                let upload = caller.create(spec).await?;
                Ok(Answer { upload: Some(upload.clone()), ..Answer::of(&upload, None) })
            }
            Self::Send { upload, content, from, upto, is_finished } => {
                let answer = caller.go_on(&upload, &content.bytes()[..upto], from, is_finished).await?;
                Ok(Answer::of(&answer, answer.file.clone()))
            }
            other => unreachable!("{other:?} carries no bytes"),
        }
    }

    async fn change(self, caller: &Caller, request_id: String) -> Result<Answer, Status> {
        let mut files = caller.files.clone();
        macro_rules! call {
            ($method:ident, $request:expr) => {{
                let answer = files.$method($request).await?.into_inner();
                Ok(Answer::of(&answer, answer.file.clone()))
            }};
        }
        match self {
            Self::Delete { file: file_id } => {
                call!(delete_file, DeleteFileRequest { file_id, request_id, ..Default::default() })
            }
            Self::Undelete { file: file_id } => {
                call!(undelete_file, UndeleteFileRequest { file_id, request_id })
            }
            Self::Archive { file: file_id } => {
                call!(archive_file, ArchiveFileRequest { file_id, request_id, ..Default::default() })
            }
            Self::Unarchive { file: file_id } => {
                call!(unarchive_file, UnarchiveFileRequest { file_id, request_id, ..Default::default() })
            }
            Self::Rename { file, name, etag } => {
                let file = Some(File { id: file, name, ..File::default() });
                let update_mask = Some(prost_types::FieldMask { paths: vec!["name".to_owned()] });
                call!(update_file, UpdateFileRequest { file, update_mask, if_etag: etag, request_id })
            }
            Self::Restore { file: file_id, version } => {
                let request =
                    RestoreFileVersionRequest { file_id, version, request_id, ..Default::default() };
                call!(restore_file_version, request)
            }
            Self::DeleteVersion { file: file_id, version } => {
                call!(
                    delete_file_version,
                    DeleteFileVersionRequest { file_id, version, request_id, ..Default::default() }
                )
            }
            Self::Copy { file: file_id, version, name } => {
                let request = CopyFileRequest { file_id, version, name, request_id, ..Default::default() };
                call!(copy_file, request)
            }
            Self::Purge { file: file_id } => {
                let answer = files
                    .purge_file(PurgeFileRequest { file_id, request_id, ..Default::default() })
                    .await?
                    .into_inner();
                Ok(Answer::of(&answer, None))
            }
            Self::BatchDelete { files: file_ids } => {
                let request = BatchDeleteFilesRequest { file_ids, request_id };
                let answer = files.batch_delete_files(request).await?.into_inner();
                Ok(Answer::of(&answer, answer.files.clone()))
            }
            Self::Cancel { upload: upload_id } => {
                let request = CancelUploadRequest { upload_id, request_id };
                Ok(Answer::of(&caller.uploads.clone().cancel_upload(request).await?.into_inner(), None))
            }
            other => unreachable!("{other:?} is no change of a file"),
        }
    }
}
