//! `strongroom ls`: lists files.

use clap::{Args, ValueEnum};
use serde_json::json;

use super::{connection::ConnectionArgs, exit, failure::Failure, human, output::Output, records::FileRecord};
use crate::proto::v1::{File, FileFilter, FileState, FileView, ListFilesRequest, ListFilesResponse};

/// What one call may ask for.
const PAGE_SIZE_MAX: i32 = 1_000;

/// Lists the files that the token may see.
#[derive(Debug, Args)]
#[command(after_help = exit::HELP)]
pub(crate) struct LsArgs {
    /// Only files of this category
    #[arg(long, default_value = "", hide_default_value = true)]
    pub category: String,
    /// Only files of this owner
    #[arg(long, default_value = "", hide_default_value = true)]
    pub owner: String,
    /// Only files with this tag; repeated: with all of them
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// Only files in this state: pending, processing, available, quarantined, unscannable, deleted, archived
    /// or error; repeated: in any of them
    #[arg(long = "state", value_name = "STATE", value_parser = state)]
    pub states: Vec<FileState>,
    /// Only files of this media type, such as image/png or image/*; repeated: of any of them
    #[arg(long = "mime-type", value_name = "TYPE")]
    pub mime_types: Vec<String>,
    /// Only files whose name begins with this text
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub name_prefix: String,
    /// What comes first
    #[arg(long, value_enum, default_value_t = Order::Newest)]
    pub order: Order,
    /// How many files at most
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: u64,
    /// All files, however many
    #[arg(long, conflicts_with = "limit")]
    pub all: bool,
    /// How many files to ask for at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=1_000))]
    pub page_size: Option<i32>,
    /// Go on where a list ended: the next_page_token of its JSON, with the same filter and order
    #[arg(long, value_name = "TOKEN", default_value = "", hide_default_value = true)]
    pub page_token: String,
    /// Files in the trash too
    #[arg(long)]
    pub deleted: bool,
    /// Say how many files match
    #[arg(long)]
    pub total: bool,
    /// More columns
    #[arg(long, short, conflicts_with = "json")]
    pub long: bool,
    /// Print one JSON object, with the files in `files`
    #[arg(long)]
    pub json: bool,
    /// Where
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

/// The orders a list can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Order {
    /// The newest first
    Newest,
    /// The oldest first
    Oldest,
    /// By name
    Name,
    /// By name, backwards
    NameDesc,
    /// The smallest first
    Smallest,
    /// The largest first
    Largest,
}

impl Order {
    fn on_the_wire(self) -> &'static str {
        match self {
            Self::Newest => "create_time desc",
            Self::Oldest => "create_time",
            Self::Name => "name",
            Self::NameDesc => "name desc",
            Self::Smallest => "size_bytes",
            Self::Largest => "size_bytes desc",
        }
    }
}

/// Prints page after page as it arrives, so that a list of any length takes the memory of one page.
pub(super) async fn run(args: LsArgs, output: Output) -> Result<(), Failure> {
    let client = args.connection.connect().await?;
    let mut request = args.request();
    let mut left = if args.all { u64::MAX } else { args.limit };
    let mut list = List { json: output.json, long: args.long, begun: false };
    let mut total = None;
    loop {
        let page_size = i32::try_from(left).unwrap_or(i32::MAX);
        request.page_size = page_size.min(args.page_size.unwrap_or(PAGE_SIZE_MAX));
        let page = client.list_files(request.clone()).await?;
        total = total.or_else(|| args.total.then(|| total_of(&page)));
        // The count costs the server a scan; one answer is enough.
        request.include_total = false;
        left = left.saturating_sub(page.files.len() as u64);
        request.page_token = page.next_page_token;
        output.raw(&list.page(page.files)?)?;
        if left == 0 || request.page_token.is_empty() {
            break;
        }
    }
    if output.json {
        return output.raw(&list.json_end(&request.page_token, total));
    }
    if let Some((total_size, is_lower_bound)) = total {
        let at_least = if is_lower_bound { "at least " } else { "" };
        output.note(format_args!("{at_least}{total_size} files match"));
    }
    if !request.page_token.is_empty() {
        output.note("there are more; pass --all or a higher --limit");
    }
    Ok(())
}

impl LsArgs {
    fn request(&self) -> ListFilesRequest {
        let filter = FileFilter {
            category: self.category.clone(),
            states: self.states.iter().map(|state| (*state).into()).collect(),
            tags_all: self.tags.clone(),
            mime_types: self.mime_types.clone(),
            owner_id: self.owner.clone(),
            name_prefix: self.name_prefix.clone(),
            ..FileFilter::default()
        };
        // JSON shows every field, so it must not show as empty what BASIC leaves out.
        let view = if self.json { FileView::Full } else { FileView::Basic };
        ListFilesRequest {
            page_size: 0,
            page_token: self.page_token.clone(),
            filter: Some(filter),
            order_by: self.order.on_the_wire().to_owned(),
            view: view.into(),
            include_total: self.total,
            show_deleted: self.deleted || self.states.contains(&FileState::Deleted),
        }
    }
}

/// How many files match, and whether there are more.
type Total = (i64, bool);

fn total_of(page: &ListFilesResponse) -> Total {
    (page.total_size.unwrap_or_default(), page.total_size_is_lower_bound)
}

const JSON_BEGIN: &[u8] = b"{\"files\":[";

/// Writes a list piece by piece: columns of fixed widths for people, one long JSON object for programs.
struct List {
    json: bool,
    long: bool,
    begun: bool,
}

impl List {
    /// The text of one page.
    fn page(&mut self, files: Vec<File>) -> Result<Vec<u8>, Failure> {
        let mut text = Vec::new();
        for file in files {
            if self.json {
                text.extend_from_slice(if self.begun { b"," } else { JSON_BEGIN });
                serde_json::to_writer(&mut text, &FileRecord::from(file))
                    .map_err(|e| Failure::Stdout(e.into()))?;
            } else {
                if !self.begun {
                    text.extend(
                        self.columns(["ID", "SIZE", "STATE", "CREATED", "CATEGORY", "TYPE", "OWNER", "NAME"]),
                    );
                }
                text.extend(self.row(&file));
            }
            self.begun = true;
        }
        Ok(text)
    }

    /// The end of the JSON.
    fn json_end(&self, next_page_token: &str, total: Option<Total>) -> Vec<u8> {
        let mut rest = json!({ "next_page_token": next_page_token });
        if let Some((total_size, is_lower_bound)) = total {
            rest["total_size"] = json!(total_size);
            rest["total_size_is_lower_bound"] = json!(is_lower_bound);
        }
        let mut text = if self.begun { Vec::new() } else { JSON_BEGIN.to_vec() };
        // The rest is an object of its own; without its brace it is the end of the one that was begun.
        text.extend(format!("],{}\n", rest.to_string().trim_start_matches('{')).into_bytes());
        text
    }

    fn row(&self, file: &File) -> Vec<u8> {
        let state = file.state().as_str_name().trim_start_matches("FILE_STATE_").to_lowercase();
        self.columns([
            &human::printable(&file.id),
            &human::size(file.size_bytes),
            &state,
            &human::time_column(file.create_time.as_ref()),
            &human::printable(&file.category),
            &human::printable(&file.mime_type),
            &human::printable(&file.owner_id),
            &human::printable(&file.name),
        ])
    }

    fn columns(&self, [id, size, state, created, category, mime_type, owner, name]: [&str; 8]) -> Vec<u8> {
        let mut line = format!("{id:<36}  {size:>10}  {state:<11}  {created:<20}  ");
        if self.long {
            line += &format!("{category:<20}  {mime_type:<24}  {owner:<24}  ");
        }
        line += name;
        line.push('\n');
        line.into_bytes()
    }
}

fn state(text: &str) -> Result<FileState, String> {
    FileState::from_str_name(&format!("FILE_STATE_{}", text.to_uppercase()))
        .filter(|state| *state != FileState::Unspecified)
        .ok_or_else(|| {
            "it is one of pending, processing, available, quarantined, unscannable, deleted, archived, error"
                .to_owned()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json_of(pages: &[&[&str]], total: Option<Total>) -> serde_json::Value {
        let mut list = List { json: true, long: false, begun: false };
        let mut text = Vec::new();
        for page in pages {
            let files = page.iter().map(|id| File { id: (*id).to_owned(), ..File::default() }).collect();
            text.extend(list.page(files).unwrap());
        }
        text.extend(list.json_end("next", total));
        serde_json::from_slice(&text).unwrap()
    }

    #[test]
    fn a_list_in_pieces_is_one_json_document() {
        let list = json_of(&[&["1", "2"], &[], &["3"]], Some((3, false)));
        let ids: Vec<_> =
            list["files"].as_array().unwrap().iter().map(|file| file["id"].as_str().unwrap()).collect();
        assert_eq!(ids, ["1", "2", "3"]);
        assert_eq!((&list["next_page_token"], &list["total_size"]), (&json!("next"), &json!(3)));

        let empty = json_of(&[], None);
        assert_eq!(empty, json!({ "files": [], "next_page_token": "next" }));
    }

    #[test]
    fn a_table_has_one_header_and_a_line_a_file() {
        let mut list = List { json: false, long: false, begun: false };
        let file = File { id: "1".into(), size_bytes: 2_048, name: "a\u{1b}b".into(), ..File::default() };
        let text = String::from_utf8(
            [list.page(vec![file.clone()]), list.page(vec![file])].map(Result::unwrap).concat(),
        );
        let text = text.unwrap();
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["ID", "SIZE", "STATE", "CREATED", "NAME"]);
        assert_eq!(lines[1], ["1", "2.0", "KiB", "unspecified", "-", "a\\u{1b}b"]);
        assert_eq!(lines.len(), 3);
    }
}
