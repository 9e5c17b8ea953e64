//! `strongroom watch`: prints changes of files as they happen.

use clap::Args;
use futures::StreamExt;
use serde_json::{Value, json};

use super::{
    connection::ConnectionArgs,
    exit,
    failure::Failure,
    human,
    output::Output,
    records::{FileRecord, rfc3339},
};
use crate::proto::v1::{
    FileEvent, FileEventKind, WatchFilesRequest, WatchFilesResponse, WatchFilter,
    watch_files_response::Message,
};

/// Prints changes of files as they happen, until it is interrupted. A connection that breaks is made again, and
/// nothing is missed.
#[derive(Debug, Args)]
#[command(after_help = exit::HELP)]
pub(crate) struct WatchArgs {
    /// Go on where another watch ended: the cursor of its last line with --json
    #[arg(long, value_name = "CURSOR", default_value = "", hide_default_value = true)]
    pub from: String,
    /// Only changes of this kind: created, updated, deleted, undeleted, archived, unarchived or purged;
    /// repeated: of any of them
    #[arg(long = "kind", value_name = "KIND", value_parser = kind)]
    pub kinds: Vec<FileEventKind>,
    /// Only changes of this file
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    pub file: String,
    /// Only files of this category, and files that are gone
    #[arg(long, default_value = "", hide_default_value = true)]
    pub category: String,
    /// Only files of this owner, and files that are gone
    #[arg(long, default_value = "", hide_default_value = true)]
    pub owner: String,
    /// Print every message as JSON, one a line, heartbeats too: each has the cursor to go on from
    #[arg(long)]
    pub json: bool,
    /// Where
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

fn kind(name: &str) -> Result<FileEventKind, String> {
    FileEventKind::from_str_name(&format!("FILE_EVENT_KIND_{}", name.to_uppercase()))
        .filter(|kind| *kind != FileEventKind::Unspecified)
        .ok_or_else(|| "no such kind of change".to_owned())
}

/// Prints until the watch fails, or nobody reads any more.
pub(super) async fn run(args: WatchArgs, output: Output) -> Result<(), Failure> {
    let client = args.connection.connect().await?;
    let filter = WatchFilter {
        kinds: args.kinds.iter().map(|kind| i32::from(*kind)).collect(),
        file_id: args.file,
        category: args.category,
        owner_id: args.owner,
    };
    let mut messages = client.watch_files(WatchFilesRequest { cursor: args.from, filter: Some(filter) });
    while let Some(message) = messages.next().await {
        print(message?, output)?;
    }
    Ok(())
}

fn print(WatchFilesResponse { message, cursor }: WatchFilesResponse, output: Output) -> Result<(), Failure> {
    match message {
        Some(Message::Event(event)) if output.json => output.json(&as_json(event, &cursor)),
        Some(Message::Event(event)) => output.line(line(&event)),
        Some(Message::Heartbeat(heartbeat)) if output.json => output.json(&json!({
            "heartbeat": { "position": heartbeat.position, "time": rfc3339(heartbeat.time) },
            "cursor": cursor,
        })),
        // A kind of message that this version does not know is none of its results.
        Some(Message::Heartbeat(_)) | None => Ok(()),
    }
}

fn as_json(event: FileEvent, cursor: &str) -> Value {
    json!({
        "event": {
            "position": event.position,
            "kind": event.kind().as_str_name(),
            "file_id": event.file_id,
            "version": event.version,
            "actor_id": event.actor_id,
            "event_time": rfc3339(event.event_time),
            "file": event.file.map(FileRecord::from),
        },
        "cursor": cursor,
    })
}

fn line(event: &FileEvent) -> String {
    let kind = event.kind().as_str_name().trim_start_matches("FILE_EVENT_KIND_").to_lowercase();
    let name = event.file.as_ref().map_or_else(|| "(gone)".to_owned(), |file| human::printable(&file.name));
    format!("{}  {kind:<10}  {}  {name}", human::time_column(event.event_time.as_ref()), event.file_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_prints_on_one_line_whatever_its_file_is_called() {
        let file = crate::proto::v1::File { name: "a\u{1b}[31m\nb".into(), ..Default::default() };
        let kind = FileEventKind::Updated.into();
        let event = FileEvent { kind, file_id: "0198".into(), file: Some(file), ..FileEvent::default() };
        let printed = line(&event);
        assert!(printed.contains("updated") && printed.contains("0198"), "{printed}");
        assert!(!printed.contains(['\n', '\u{1b}']), "{printed:?}");
        assert!(line(&FileEvent { file: None, ..event }).ends_with("(gone)"));
    }

    #[test]
    fn kinds_are_named_as_in_the_contract() {
        assert_eq!(kind("purged"), Ok(FileEventKind::Purged));
        assert!(kind("unspecified").is_err() && kind("eaten").is_err());
    }
}
