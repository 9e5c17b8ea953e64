//! `strongroom get`: downloads a file, or a part of it.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::{
    connection::ConnectionArgs, exit, failure::Failure, human, output::Output, partial_file::PartialFile,
    records, safe_name::safe_name, standard_streams,
};
use crate::{client::Download, proto::v1::DownloadFileRequest};

/// Downloads a file, or a part of it.
///
/// The bytes go to a hidden file beside the destination and take its place only after every check: an
/// interrupted or damaged download leaves nothing behind. Without --output the file lands in the current
/// directory under its own name, reduced to a safe one: nothing before a slash or backslash, no leading dots,
/// no control characters.
#[derive(Debug, Args)]
#[command(after_help = exit::HELP)]
pub(crate) struct GetArgs {
    /// The id of the file
    pub id: String,
    /// Where to: a file, a directory, or `-` for standard output. Standard output gets bytes before the last
    /// check: on exit code 8 they must be thrown away
    #[arg(short, long, value_name = "PATH")]
    pub output: Option<PathBuf>,
    /// Which version; 0 is the current one
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub version: i32,
    /// The first byte to read; -100 means the last 100 bytes
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        hide_default_value = true,
        allow_negative_numbers = true
    )]
    pub offset: i64,
    /// How many bytes to read at most
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub length: i64,
    /// Replace the destination when it exists
    #[arg(short, long)]
    pub force: bool,
    /// Print the answer as JSON
    #[arg(long)]
    pub json: bool,
    /// Where from
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

enum Destination {
    Stdout,
    File(PathBuf),
    Directory(PathBuf),
}

/// Downloads one file.
pub(super) async fn run(args: GetArgs, output: Output) -> Result<(), Failure> {
    let destination = match args.output {
        Some(path) if path.as_os_str() == "-" && output.json => {
            return Err(Failure::Usage("--json and `-o -` both want standard output".to_owned()));
        }
        Some(path) if path.as_os_str() == "-" => Destination::Stdout,
        Some(path) if path.is_dir() => Destination::Directory(path),
        Some(path) => Destination::File(path),
        None => Destination::Directory(PathBuf::new()),
    };
    let client = args.connection.connect().await?;
    let request = DownloadFileRequest {
        file_id: args.id,
        version: args.version,
        read_offset: args.offset,
        read_limit: args.length,
        if_etag: String::new(),
    };
    let mut download = client.download(request).await?;
    let name = download.header.file.as_ref().map(|file| file.name.clone()).unwrap_or_default();
    let path = match destination {
        Destination::Stdout => {
            write(&mut download, &name, &mut standard_streams::stdout()?, output).await?;
            return Ok(());
        }
        Destination::File(path) => path,
        Destination::Directory(path) => path.join(safe_name(&name)),
    };
    let (partial, mut file) = PartialFile::create(path, args.force).await?;
    let written_bytes = write(&mut download, &name, &mut file, output).await?;
    drop(file);
    print(&download, &partial.keep().await?, written_bytes, output)
}

async fn write<W>(download: &mut Download, name: &str, writer: &mut W, output: Output) -> Result<u64, Failure>
where
    W: tokio::io::AsyncWrite + Send + Unpin,
{
    let length = download.header.range.map(|range| range.length.unsigned_abs());
    let bar = output.progress(name, length);
    let written_bytes = download.write_to(writer, |written_bytes| bar.set_position(written_bytes)).await;
    bar.finish_and_clear();
    Ok(written_bytes?)
}

fn print(download: &Download, path: &Path, written_bytes: u64, output: Output) -> Result<(), Failure> {
    if output.json {
        return output.json(&json!({
            "path": path.to_string_lossy(),
            "file": download.header.file.clone().map(records::FileRecord::from),
            "range": download.header.range.as_ref().map(records::range),
        }));
    }
    let size = human::size(i64::try_from(written_bytes).unwrap_or(i64::MAX));
    output.line(format_args!("{}  {size}", human::printable(&path.to_string_lossy())))
}
