//! `strongroom open`: downloads the file of a share as a visitor.

use std::{fs, io::Read as _, path::PathBuf};

use clap::Args;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;

use super::{
    connection::{ConnectionArgs, parse_secret},
    exit,
    failure::Failure,
    human,
    output::Output,
    partial_file::PartialFile,
    safe_name::safe_name,
    standard_streams,
};
use crate::{
    client::{Client, SharedFile},
    proto::v1::{ResolveShareRequest, ResolveShareResponse, VisitPermission},
};

/// The maximum size of a file with a password.
const PASSWORD_FILE_BYTES_MAX: u64 = 4_096;

const EXAMPLES: &str = "Examples:
  strongroom open srs_… --server https://files.example.org
  strongroom open srs_… --password-file secret.txt -o minutes.pdf
  strongroom open srs_… --show --json

";

#[derive(Debug, Args)]
#[command(after_help = format!("{EXAMPLES}{}", exit::HELP))]
pub(crate) struct OpenArgs {
    /// The token of the share. It starts with srs_.
    #[arg(value_name = "SHARE_TOKEN", value_parser = parse_secret)]
    pub share_token: SecretString,
    /// A file that contains the password of the share, or `-` for standard input.
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// The destination: a file, a directory, or `-` for standard output. Standard output receives bytes before the
    /// final check; discard them if the exit code is not 0.
    #[arg(short, long, value_name = "PATH", conflicts_with = "show")]
    pub output: Option<PathBuf>,
    /// Show the file without downloading it. Does not count as a download.
    #[arg(long)]
    pub show: bool,
    /// Replace the destination if it exists.
    #[arg(short, long)]
    pub force: bool,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

pub(super) async fn run_open(args: OpenArgs, output: Output) -> Result<(), Failure> {
    let is_stdout = args.output.as_ref().is_some_and(|path| path.as_os_str() == "-");
    if is_stdout && args.json {
        let problem = "--json and `-o -` both write to standard output; use only one of them";
        return Err(Failure::Usage(problem.to_owned()));
    }
    let client = args.connection.connect_as_visitor().await?;
    let request = ResolveShareRequest {
        token: args.share_token.expose_secret().to_owned(),
        password: args.password()?.expose_secret().to_owned(),
    };
    let resolved = client.resolve_share(request).await?;
    if args.show {
        return print_description(&resolved, output);
    }
    if is_stdout {
        return download(&client, &resolved, &mut standard_streams::stdout()?, output).await.map(drop);
    }
    let path = match args.output.clone() {
        Some(path) if !path.is_dir() => path,
        directory => directory.unwrap_or_default().join(safe_name(&resolved.file_name)),
    };
    let (partial, mut file) = PartialFile::create(path, args.force).await?;
    let downloaded = download(&client, &resolved, &mut file, output).await?;
    drop(file);
    let path = partial.persist().await?;
    if output.json {
        return output.json(&json!({
            "path": path.to_string_lossy(),
            "file_name": downloaded.header.file_name,
            "version": downloaded.header.version,
            "mime_type": downloaded.header.mime_type,
            "size_bytes": downloaded.size_bytes,
            "sha256": hex::encode(&downloaded.header.sha256),
        }));
    }
    let size = human::size(i64::try_from(downloaded.size_bytes).unwrap_or(i64::MAX));
    output.line(format_args!("{}  {size}", human::printable(&path.to_string_lossy())))
}

impl OpenArgs {
    /// Reads the password; empty if there is none. One newline at its end is not part of it.
    fn password(&self) -> Result<SecretString, Failure> {
        let Some(path) = &self.password_file else { return Ok(SecretString::default()) };
        let mut text = String::new();
        let read = match path.as_os_str() == "-" {
            true => std::io::stdin().take(PASSWORD_FILE_BYTES_MAX).read_to_string(&mut text),
            false => fs::File::open(path)
                .and_then(|file| file.take(PASSWORD_FILE_BYTES_MAX).read_to_string(&mut text)),
        };
        read.map_err(Failure::local_io(format!("read the password from {}", path.display())))?;
        let password = text.strip_suffix('\n').unwrap_or(&text);
        Ok(password.strip_suffix('\r').unwrap_or(password).into())
    }
}

async fn download<W>(
    client: &Client,
    resolved: &ResolveShareResponse,
    writer: &mut W,
    output: Output,
) -> Result<SharedFile, Failure>
where
    W: tokio::io::AsyncWrite + Send + Unpin,
{
    let bar = output.progress(&resolved.file_name, Some(resolved.size_bytes.unsigned_abs()));
    let downloaded = client
        .download_share_to(&resolved.grant, writer, |written_bytes| bar.set_position(written_bytes))
        .await;
    bar.finish_and_clear();
    Ok(downloaded?)
}

fn print_description(resolved: &ResolveShareResponse, output: Output) -> Result<(), Failure> {
    let permission = match resolved.permission() {
        VisitPermission::View => "view",
        VisitPermission::Download => "download",
        VisitPermission::Unspecified => "unknown",
    };
    let expire_time = resolved.share_expire_time.map(|time| time.to_string());
    if output.json {
        return output.json(&json!({
            "file_name": resolved.file_name,
            "version": resolved.version,
            "size_bytes": resolved.size_bytes,
            "mime_type": resolved.mime_type,
            "permission": permission,
            "expire_time": expire_time,
        }));
    }
    output.line(format_args!("{:<12}{}", "name", human::printable(&resolved.file_name)))?;
    output.line(format_args!("{:<12}{}", "size", human::size(resolved.size_bytes)))?;
    output.line(format_args!("{:<12}{}", "type", human::printable(&resolved.mime_type)))?;
    output.line(format_args!("{:<12}{permission}", "permission"))?;
    output.line(format_args!("{:<12}{}", "expires", expire_time.as_deref().unwrap_or("-")))
}
