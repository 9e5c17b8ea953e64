//! `strongroom put`: uploads files, or standard input.

use std::path::{Path, PathBuf};

use chrono::{DateTime, FixedOffset};
use clap::Args;
use prost_types::Timestamp;
use serde_json::json;
use uuid::Uuid;

use super::{
    connection::ConnectionArgs, exit, failure, failure::Failure, human, output::Output, records,
    standard_streams, started::Started,
};
use crate::{
    client::{Client, ClientError, Code},
    proto::v1::{Upload, UploadFileResponse, UploadSpec, Visibility},
};

/// From this size on a file is uploaded so that it can be gone on with: two parts.
const RESUMABLE_SIZE_BYTES_MIN: u64 = 16 * 1024 * 1024;

/// Uploads files. A file is stored whole and checked, or not at all. Files of 16 MiB and more go on where they broke off: by
/// themselves while this runs, and after it was stopped when the same command is run again within a day.
#[derive(Debug, Args)]
#[command(after_help = exit::HELP)]
pub(crate) struct PutArgs {
    /// The files; `-` is standard input and needs --name
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// The name to store the file under, instead of its own
    #[arg(long)]
    pub name: Option<String>,
    /// The category; without it the default of the tenant's policy
    #[arg(long, default_value = "", hide_default_value = true)]
    pub category: String,
    /// A tag; may be repeated
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// A title for people
    #[arg(long, default_value = "", hide_default_value = true)]
    pub title: String,
    /// A description for people
    #[arg(long, default_value = "", hide_default_value = true)]
    pub description: String,
    /// Who may see the file: owner, managers, organization or public; without it the category decides
    #[arg(long, value_parser = visibility)]
    pub visibility: Option<Visibility>,
    /// The media type, where the bytes do not tell
    #[arg(long, default_value = "", hide_default_value = true)]
    pub mime_type: String,
    /// When the file expires, such as 2030-01-31T00:00:00Z
    #[arg(long, value_name = "RFC3339", value_parser = DateTime::parse_from_rfc3339)]
    pub expire_time: Option<DateTime<FixedOffset>>,
    /// After how many days the file is deleted at the latest; 0 is never
    #[arg(long, value_name = "DAYS", default_value_t = 0, hide_default_value = true)]
    pub retention_days: i32,
    /// The file that this is a new version of; its name and record stay as they are
    #[arg(
        long,
        value_name = "ID",
        conflicts_with_all = [
            "name", "category", "tags", "title", "description", "visibility", "expire_time", "retention_days"
        ]
    )]
    pub file_id: Option<String>,
    /// What is new in this version, in one line
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub change_description: String,
    /// A UUID that makes a repetition of this very command safe
    #[arg(long, value_name = "UUID")]
    pub request_id: Option<Uuid>,
    /// Start anew, also where an upload of this file was broken off before
    #[arg(long)]
    pub no_resume: bool,
    /// Print the answers as JSON, one a line
    #[arg(long)]
    pub json: bool,
    /// Where to
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

/// Uploads one file after the other, going on after a failure.
pub(super) async fn run(args: PutArgs, output: Output) -> Result<(), Failure> {
    let several = args.files.len() > 1;
    if several && (args.name.is_some() || args.request_id.is_some() || args.file_id.is_some()) {
        return Err(Failure::Usage(
            "--name, --file-id and --request-id belong to one file; there are several".to_owned(),
        ));
    }
    if !several && args.name.is_none() && args.file_id.is_none() && is_stdin(&args.files[0]) {
        return Err(Failure::Usage("standard input has no name; pass --name".to_owned()));
    }
    let client = args.connection.connect().await?;
    let put = async |path: PathBuf| {
        let uploaded = put_one(&client, &args, &path, output).await;
        uploaded.map_err(|failure| if several { failure.about(&path.display().to_string()) } else { failure })
    };
    failure::each(args.files.clone(), put, |failure| output.report(failure)).await
}

async fn put_one(client: &Client, args: &PutArgs, path: &Path, output: Output) -> Result<(), Failure> {
    let spec = args.spec(path)?;
    let size_bytes = if is_stdin(path) { None } else { regular_size(path).await? };
    let bar = output.progress(&spec.name, size_bytes);
    let progress = {
        let bar = bar.clone();
        move |sent_bytes| bar.set_position(sent_bytes)
    };
    let answer = if is_stdin(path) {
        client.upload(spec, standard_streams::stdin()?, progress).await
    } else if size_bytes.is_some_and(|size| size >= RESUMABLE_SIZE_BYTES_MIN) {
        put_resumable(client, args, path, spec, output, progress).await
    } else if size_bytes.is_some() {
        client.upload_file(path, spec, progress).await
    } else {
        // A pipe can be read once, so there is nothing to try again with.
        let pipe =
            tokio::fs::File::open(path).await.map_err(Failure::local(format!("open {}", path.display())))?;
        client.upload(spec, pipe, progress).await
    };
    bar.finish_and_clear();
    print(answer?, path, output)
}

/// What cannot be remembered is uploaded all the same, and said.
async fn put_resumable(
    client: &Client,
    args: &PutArgs,
    path: &Path,
    spec: UploadSpec,
    output: Output,
    progress: impl Fn(u64) + Send + Sync + 'static,
) -> Result<UploadFileResponse, ClientError> {
    let started = Started::of(&args.connection.place(), path, &spec).map_err(ClientError::Source)?;
    let complain = |done: std::io::Result<()>| {
        if let Err(error) = done {
            output.note(format_args!("strongroom: this upload is not remembered across runs: {error}"));
        }
    };
    let known = started.as_ref().filter(|_| !args.no_resume).and_then(Started::upload_id);
    let created = |upload: &Upload| {
        if let Some(started) = &started {
            complain(started.keep(&upload.id));
        }
    };
    let uploaded = client.upload_resumable(path, spec, known, created, progress).await;
    // One that was refused for what it is will be refused again; one that broke is gone on with.
    let is_over = match &uploaded {
        Ok(_) => true,
        Err(ClientError::Rejected(rejection)) => {
            matches!(rejection.code, Code::InvalidArgument | Code::NotFound | Code::PermissionDenied)
        }
        Err(_) => false,
    };
    if let Some(started) = started.filter(|_| is_over) {
        complain(started.forget());
    }
    uploaded
}

fn print(answer: UploadFileResponse, path: &Path, output: Output) -> Result<(), Failure> {
    let UploadFileResponse { file, quota_state, warnings, event_position } = answer;
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
        output.note(format_args!("strongroom: {}", human::printable(&warning.message)));
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
                    "standard input has no name; upload it alone, with --name".to_owned(),
                ));
            }
            None => path.file_name().and_then(|name| name.to_str()).map(str::to_owned).ok_or_else(|| {
                Failure::Usage(format!("{} has no name that is valid text; pass --name", path.display()))
            })?,
        };
        Ok(UploadSpec {
            name,
            mime_type: self.mime_type.clone(),
            category: self.category.clone(),
            title: self.title.clone(),
            description: self.description.clone(),
            tags: self.tags.clone(),
            expire_time: self.expire_time.map(|at| Timestamp {
                seconds: at.timestamp(),
                // Below one second, leap seconds apart, which a timestamp on the wire does not know.
                nanos: i32::try_from(at.timestamp_subsec_nanos().min(999_999_999)).unwrap_or_default(),
            }),
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

/// The size of a regular file; nothing for a pipe or a device. A directory is refused here, with its name.
async fn regular_size(path: &Path) -> Result<Option<u64>, Failure> {
    let about =
        tokio::fs::metadata(path).await.map_err(Failure::local(format!("read {}", path.display())))?;
    if about.is_dir() {
        return Err(Failure::Usage(format!("{} is a directory; name the files in it", path.display())));
    }
    Ok(about.is_file().then_some(about.len()))
}

fn visibility(text: &str) -> Result<Visibility, String> {
    Visibility::from_str_name(&format!("VISIBILITY_{}", text.to_uppercase()))
        .filter(|visibility| *visibility != Visibility::Unspecified)
        .ok_or_else(|| "it is one of owner, managers, organization, public".to_owned())
}
