//! `strongroom put`: uploads files or standard input.

use std::path::{Path, PathBuf};

use chrono::{DateTime, FixedOffset};
use clap::Args;
use serde_json::json;
use uuid::Uuid;

use super::{
    connection::ConnectionArgs, exit, failure, failure::Failure, human, output::Output, records,
    standard_streams, upload_state::UploadStateFile,
};
use crate::{
    client::{Client, ClientError, Code},
    domain::media_names::type_from_extension,
    proto::v1::{Upload, UploadFileResponse, UploadSpec, Visibility},
};

/// Files of at least this size (two parts) use a resumable upload.
const RESUMABLE_SIZE_BYTES_MIN: u64 = 16 * 1024 * 1024;

#[derive(Debug, Args)]
#[command(after_help = exit::HELP)]
pub(crate) struct PutArgs {
    /// The files to upload; `-` reads standard input and requires --name.
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// The name of the stored file. Default: the name of the local file.
    #[arg(long)]
    pub name: Option<String>,
    /// The category. Default: the default category of the tenant's policy.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub category: String,
    /// A tag; may be repeated.
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// The title to display.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub title: String,
    /// The description to display.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub description: String,
    /// The visibility: owner, managers, organization or public. Default: the visibility of the
    /// category.
    #[arg(long, value_parser = parse_visibility)]
    pub visibility: Option<Visibility>,
    /// The content type to declare, used if it cannot be detected from the bytes. Default: the type of the
    /// file's extension.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub mime_type: String,
    /// The time when the file expires, such as 2030-01-31 (midnight UTC) or 2030-01-31T08:30:00Z. Default: never.
    #[arg(long, value_name = "TIME", value_parser = human::parse_time)]
    pub expire_time: Option<DateTime<FixedOffset>>,
    /// The maximum age of the file in days, after which it is deleted; 0 means never.
    #[arg(long, value_name = "DAYS", default_value_t = 0, hide_default_value = true)]
    pub retention_days: i32,
    /// Upload a new version of this file; its name and other metadata do not change.
    #[arg(
        long,
        value_name = "ID",
        conflicts_with_all = [
            "name", "category", "tags", "title", "description", "visibility", "expire_time", "retention_days"
        ]
    )]
    pub file_id: Option<String>,
    /// A one-line description of the changes in this version.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub change_description: String,
    /// A UUID that identifies this upload, so that repeating the command does not store the file twice.
    #[arg(long, value_name = "UUID")]
    pub request_id: Option<Uuid>,
    /// Start from the beginning, even if an interrupted upload of this file could be resumed.
    #[arg(long)]
    pub no_resume: bool,
    /// Print the results as JSON, one document per line.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

/// Uploads the files one after the other, and continues after an error.
pub(super) async fn run_put(args: PutArgs, output: Output) -> Result<(), Failure> {
    let has_several = args.files.len() > 1;
    if has_several && (args.name.is_some() || args.request_id.is_some() || args.file_id.is_some()) {
        return Err(Failure::Usage(
            "--name, --file-id and --request-id apply to a single file; upload the files one at a time"
                .to_owned(),
        ));
    }
    if !has_several && args.name.is_none() && args.file_id.is_none() && is_stdin(&args.files[0]) {
        return Err(Failure::Usage("standard input has no file name; pass --name".to_owned()));
    }
    if !has_several {
        check_not_directory(&args.files[0])?;
    }
    let client = args.connection.connect().await?;
    let put = async |path: PathBuf| {
        let uploaded = put_one(&client, &args, &path, output).await;
        uploaded.map_err(|failure| {
            if has_several { failure.with_subject(&path.display().to_string()) } else { failure }
        })
    };
    failure::run_for_each(args.files.clone(), put, |failure| output.report(failure)).await
}

async fn put_one(client: &Client, args: &PutArgs, path: &Path, output: Output) -> Result<(), Failure> {
    check_not_directory(path)?;
    let spec = args.spec(path)?;
    let size_bytes = if is_stdin(path) { None } else { regular_size(path).await? };
    let bar = output.progress(&spec.name, size_bytes);
    let progress = {
        let bar = bar.clone();
        move |sent_bytes| bar.set_position(sent_bytes)
    };
    let response = if is_stdin(path) {
        client.upload_reader(spec, standard_streams::stdin()?, progress).await
    } else if size_bytes.is_some_and(|size| size >= RESUMABLE_SIZE_BYTES_MIN) {
        put_resumable(client, args, path, spec, output, progress).await
    } else if size_bytes.is_some() {
        client.upload_file(path, spec, progress).await
    } else {
        // A pipe can be read only once, so the upload cannot be retried.
        let pipe = tokio::fs::File::open(path)
            .await
            .map_err(Failure::local_io(format!("open {}", path.display())))?;
        client.upload_reader(spec, pipe, progress).await
    };
    bar.finish_and_clear();
    print_result(response?, path, output)
}

/// Uploads a file so that the upload can be resumed by a later run. If the state file cannot be written,
/// prints a warning and continues.
async fn put_resumable(
    client: &Client,
    args: &PutArgs,
    path: &Path,
    spec: UploadSpec,
    output: Output,
    progress: impl Fn(u64) + Send + Sync + 'static,
) -> Result<UploadFileResponse, ClientError> {
    let state_file = UploadStateFile::locate(&args.connection.server_identity(), path, &spec)
        .map_err(ClientError::Source)?;
    let warn_on_error = |result: std::io::Result<()>| {
        if let Err(error) = result {
            output.note(format_args!("warning: a later run cannot resume this upload: {error}"));
        }
    };
    let upload_id = state_file.as_ref().filter(|_| !args.no_resume).and_then(UploadStateFile::read_upload_id);
    let on_created = |upload: &Upload| {
        if let Some(state_file) = &state_file {
            warn_on_error(state_file.write_upload_id(&upload.id));
        }
    };
    let uploaded = client.upload_resumable(path, spec, upload_id, on_created, progress).await;
    // A rejected upload would be rejected again. After any other error, a later run can resume.
    let is_finished = match &uploaded {
        Ok(_) => true,
        Err(ClientError::Rejected(rejection)) => {
            matches!(rejection.code, Code::InvalidArgument | Code::NotFound | Code::PermissionDenied)
        }
        Err(_) => false,
    };
    if let Some(state_file) = state_file.filter(|_| is_finished) {
        warn_on_error(state_file.delete());
    }
    uploaded
}

fn print_result(response: UploadFileResponse, path: &Path, output: Output) -> Result<(), Failure> {
    let UploadFileResponse { file, quota_state, warnings, event_position } = response;
    if output.json {
        return output.json(&json!({
            "source": path.to_string_lossy(),
            "file": file.map(records::FileRecord::from),
            "quota_state": quota_state.as_ref().map(records::quota_state),
            "event_position": event_position,
            "warnings": warnings.iter().map(records::warning).collect::<Vec<_>>(),
        }));
    }
    for warning in warnings {
        output.note(format_args!("warning: {}", human::printable(&warning.message)));
    }
    let file = file.unwrap_or_default();
    output.line(format_args!(
        "{}  {}  {}",
        file.id,
        human::size(file.size_bytes),
        human::printable(&file.name)
    ))
}

impl PutArgs {
    fn spec(&self, path: &Path) -> Result<UploadSpec, Failure> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None if self.file_id.is_some() => String::new(),
            None if is_stdin(path) => {
                return Err(Failure::Usage(
                    "standard input has no file name; upload it alone, with --name".to_owned(),
                ));
            }
            None => path.file_name().and_then(|name| name.to_str()).map(str::to_owned).ok_or_else(|| {
                Failure::Usage(format!("the name of {} is not valid UTF-8; pass --name", path.display()))
            })?,
        };
        Ok(UploadSpec {
            name,
            mime_type: match self.mime_type.as_str() {
                "" => type_from_extension(&path.to_string_lossy()).unwrap_or_default().to_owned(),
                declared => declared.to_owned(),
            },
            category: self.category.clone(),
            title: self.title.clone(),
            description: self.description.clone(),
            tags: self.tags.clone(),
            expire_time: self.expire_time.map(human::timestamp),
            file_id: self.file_id.clone().unwrap_or_default(),
            change_description: self.change_description.clone(),
            retention_days: self.retention_days,
            visibility: self.visibility.unwrap_or_default().into(),
            request_id: self.request_id.map(|id| id.to_string()).unwrap_or_default(),
            ..UploadSpec::default()
        })
    }
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Checks that a path is not a directory. A path that does not exist is reported when it is read.
fn check_not_directory(path: &Path) -> Result<(), Failure> {
    if is_stdin(path) || !path.is_dir() {
        return Ok(());
    }
    let path = path.display();
    Err(Failure::Usage(format!("{path} is a directory; pass the files in it, such as {path}/*")))
}

/// Returns the size of a regular file, or `None` for a pipe or a device.
async fn regular_size(path: &Path) -> Result<Option<u64>, Failure> {
    let metadata =
        tokio::fs::metadata(path).await.map_err(Failure::local_io(format!("read {}", path.display())))?;
    Ok(metadata.is_file().then_some(metadata.len()))
}

fn parse_visibility(text: &str) -> Result<Visibility, String> {
    Visibility::from_str_name(&format!("VISIBILITY_{}", text.to_uppercase()))
        .filter(|visibility| *visibility != Visibility::Unspecified)
        .ok_or_else(|| "unknown visibility; use owner, managers, organization or public".to_owned())
}
