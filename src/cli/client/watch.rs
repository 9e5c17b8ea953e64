//! `strongroom watch`: prints file changes as they happen.

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

#[derive(Debug, Args)]
#[command(after_help = exit::HELP)]
pub(crate) struct WatchArgs {
    /// Resume an earlier watch: the cursor of the last line of its --json output.
    #[arg(long, value_name = "CURSOR", default_value = "", hide_default_value = true)]
    pub from: String,
    /// Print only changes of this kind: created, updated, deleted, undeleted, archived, unarchived or purged;
    /// if repeated, of any of the kinds. Only admins see disabled webhooks and quota alerts, with
    /// webhook_disabled and quota_alert.
    #[arg(long = "kind", value_name = "KIND", value_parser = parse_kind)]
    pub kinds: Vec<FileEventKind>,
    /// Print only changes of this file.
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    pub file: String,
    /// Print only changes of files in this category, and of files that no longer exist.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub category: String,
    /// Print only changes of files of this owner, and of files that no longer exist.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub owner: String,
    /// Print all messages as JSON, one per line, including heartbeats. Each contains a cursor to resume from.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

fn parse_kind(name: &str) -> Result<FileEventKind, String> {
    FileEventKind::from_str_name(&format!("FILE_EVENT_KIND_{}", name.to_uppercase()))
        .filter(|kind| *kind != FileEventKind::Unspecified)
        .ok_or_else(|| {
            "unknown kind; use created, updated, deleted, undeleted, archived, unarchived or purged"
                .to_owned()
        })
}

/// Prints changes until the watch fails or standard output is closed.
pub(super) async fn run_watch(args: WatchArgs, output: Output) -> Result<(), Failure> {
    let client = args.connection.connect().await?;
    let filter = WatchFilter {
        kinds: args.kinds.iter().map(|kind| i32::from(*kind)).collect(),
        file_id: args.file,
        category: args.category,
        owner_id: args.owner,
    };
    let mut messages = client.watch_files(WatchFilesRequest { cursor: args.from, filter: Some(filter) });
    if !output.json {
        output.note("waiting for changes; press Ctrl-C to stop");
    }
    while let Some(message) = messages.next().await {
        print_message(message?, output)?;
    }
    Ok(())
}

fn print_message(
    WatchFilesResponse { message, cursor }: WatchFilesResponse,
    output: Output,
) -> Result<(), Failure> {
    match message {
        Some(Message::Event(event)) if output.json => output.json(&event_json(event, &cursor)),
        Some(Message::Event(event)) => output.line(format_event(&event)),
        Some(Message::Heartbeat(heartbeat)) if output.json => output.json(&json!({
            "heartbeat": { "position": heartbeat.position, "time": rfc3339(heartbeat.time) },
            "cursor": cursor,
        })),
        // Ignore message types that this version does not know.
        Some(Message::Heartbeat(_)) | None => Ok(()),
    }
}

fn event_json(event: FileEvent, cursor: &str) -> Value {
    json!({
        "event": {
            "position": event.position,
            "kind": event.kind().as_str_name(),
            "file_id": event.file_id,
            "version": event.version,
            "revision": event.revision,
            "webhook_id": event.webhook_id,
            "quota_alert_id": event.quota_alert_id,
            "quota_level": event.quota_level().as_str_name(),
            "actor_id": event.actor_id,
            "event_time": rfc3339(event.event_time),
            "file": event.file.map(FileRecord::from),
        },
        "cursor": cursor,
    })
}

fn format_event(event: &FileEvent) -> String {
    let kind = event.kind().as_str_name().trim_start_matches("FILE_EVENT_KIND_").to_lowercase();
    if event.file_id.is_empty() {
        let id = format!("{}{}", event.webhook_id, event.quota_alert_id);
        return format!("{}  {kind:<10}  {id}", human::time_column(event.event_time.as_ref()));
    }
    let name =
        event.file.as_ref().map_or_else(|| "(not available)".to_owned(), |file| human::printable(&file.name));
    format!("{}  {kind:<10}  {}  {name}", human::time_column(event.event_time.as_ref()), event.file_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_prints_on_one_line_for_any_file_name() {
        let file = crate::proto::v1::File { name: "a\u{1b}[31m\nb".into(), ..Default::default() };
        let kind = FileEventKind::Updated.into();
        let event = FileEvent { kind, file_id: "0198".into(), file: Some(file), ..FileEvent::default() };
        let printed = format_event(&event);
        assert!(printed.contains("updated") && printed.contains("0198"), "{printed}");
        assert!(!printed.contains(['\n', '\u{1b}']), "{printed:?}");
        assert!(format_event(&FileEvent { file: None, ..event }).ends_with("(not available)"));
        let disabled = FileEvent { webhook_id: "0199".into(), ..FileEvent::default() };
        assert!(format_event(&disabled).ends_with("  0199"));
        let alert = FileEvent { quota_alert_id: "0200".into(), ..FileEvent::default() };
        assert!(format_event(&alert).ends_with("  0200"));
    }

    #[test]
    fn parse_kind_accepts_protobuf_names() {
        assert_eq!(parse_kind("purged"), Ok(FileEventKind::Purged));
        assert_eq!(parse_kind("webhook_disabled"), Ok(FileEventKind::WebhookDisabled));
        assert!(parse_kind("unspecified").is_err() && parse_kind("eaten").is_err());
    }
}
