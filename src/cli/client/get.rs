//! `strongroom get`: downloads files or a byte range of each.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::{
    connection::ConnectionArgs, exit, failure, failure::Failure, human, output::Output,
    partial_file::PartialFile, records, safe_name::safe_name, standard_streams,
};
use crate::{
    client::{Client, Download},
    proto::v1::DownloadFileRequest,
};

#[derive(Debug, Args)]
#[command(after_help = exit::HELP)]
pub(crate) struct GetArgs {
    /// The ids of the files, as `strongroom ls` prints them.
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
    /// The destination: a file, a directory (required for several files), or `-` for standard output. Standard
    /// output receives bytes before the final check; discard them if the exit code is not 0.
    #[arg(short, long, value_name = "PATH")]
    pub output: Option<PathBuf>,
    /// The version to download; 0 is the current version.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub version: i32,
    /// The offset of the first byte; a negative offset counts from the end, so -100 reads the last 100 bytes.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        hide_default_value = true,
        allow_negative_numbers = true
    )]
    pub offset: i64,
    /// The maximum number of bytes to read; 0 reads to the end.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub length: i64,
    /// Replace the destination if it exists.
    #[arg(short, long)]
    pub force: bool,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

enum Destination {
    Stdout,
    File(PathBuf),
    Directory(PathBuf),
}

/// Downloads the files one after the other, and continues after an error.
pub(super) async fn run_get(args: GetArgs, output: Output) -> Result<(), Failure> {
    failure::check_ids(&args.ids, "`strongroom ls` prints the ids of files")?;
    let destination = args.destination()?;
    let client = args.connection.connect().await?;
    let has_several = args.ids.len() > 1;
    let get = async |id: String| {
        let downloaded = get_one(&client, &args, &id, &destination, output).await;
        downloaded.map_err(|failure| if has_several { failure.with_subject(&id) } else { failure })
    };
    failure::run_for_each(args.ids.clone(), get, |failure| output.report(failure)).await
}

impl GetArgs {
    fn destination(&self) -> Result<Destination, Failure> {
        let has_several = self.ids.len() > 1;
        if has_several && self.version != 0 {
            return Err(Failure::Usage(
                "--version applies to a single file; download the files one at a time".to_owned(),
            ));
        }
        match self.output.clone() {
            Some(path) if path.as_os_str() == "-" && self.json => Err(Failure::Usage(
                "--json and `-o -` both write to standard output; use only one of them".to_owned(),
            )),
            Some(path) if path.is_dir() => Ok(Destination::Directory(path)),
            Some(path) if has_several => Err(Failure::Usage(format!(
                "{} is not a directory; several files need a directory as --output",
                path.display()
            ))),
            Some(path) if path.as_os_str() == "-" => Ok(Destination::Stdout),
            Some(path) => Ok(Destination::File(path)),
            None => Ok(Destination::Directory(PathBuf::new())),
        }
    }
}

async fn get_one(
    client: &Client,
    args: &GetArgs,
    id: &str,
    destination: &Destination,
    output: Output,
) -> Result<(), Failure> {
    let request = DownloadFileRequest {
        file_id: id.to_owned(),
        version: args.version,
        read_offset: args.offset,
        read_limit: args.length,
        if_etag: String::new(),
    };
    let mut download = client.open_download(request).await?;
    let name = download.header.file.as_ref().map(|file| file.name.clone()).unwrap_or_default();
    let path = match destination {
        Destination::Stdout => {
            write_download(&mut download, &name, &mut standard_streams::stdout()?, output).await?;
            return Ok(());
        }
        Destination::File(path) => path.clone(),
        Destination::Directory(path) => path.join(safe_name(&name)),
    };
    let (partial, mut file) = PartialFile::create(path, args.force).await?;
    let written_bytes = write_download(&mut download, &name, &mut file, output).await?;
    drop(file);
    print_result(&download, &partial.persist().await?, written_bytes, output)
}

async fn write_download<W>(
    download: &mut Download,
    name: &str,
    writer: &mut W,
    output: Output,
) -> Result<u64, Failure>
where
    W: tokio::io::AsyncWrite + Send + Unpin,
{
    let length = download.header.range.map(|range| range.length.unsigned_abs());
    let bar = output.progress(name, length);
    let written_bytes = download.write_to(writer, |written_bytes| bar.set_position(written_bytes)).await;
    bar.finish_and_clear();
    Ok(written_bytes?)
}

fn print_result(download: &Download, path: &Path, written_bytes: u64, output: Output) -> Result<(), Failure> {
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
