//! `strongroom ls`: lists files.

use clap::{Args, ValueEnum};
use serde_json::json;

use super::{connection::ConnectionArgs, exit, failure::Failure, human, output::Output, records::FileRecord};
use crate::proto::v1::{File, FileFilter, FileState, FileView, ListFilesRequest, ListFilesResponse};

/// The largest page that a call may request.
const PAGE_SIZE_MAX: i32 = 1_000;

#[derive(Debug, Args)]
#[command(after_help = exit::HELP)]
pub(crate) struct LsArgs {
    /// List only files in this category.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub category: String,
    /// List only files of this owner.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub owner: String,
    /// List only files with this tag; if repeated, with all of the tags.
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// List only files in this state: pending, processing, available, quarantined, unscannable, deleted,
    /// archived or error; if repeated, in any of the states.
    #[arg(long = "state", value_name = "STATE", value_parser = parse_state)]
    pub states: Vec<FileState>,
    /// List only files of this content type, such as image/png or image/*; if repeated, of any of the types.
    #[arg(long = "mime-type", value_name = "TYPE")]
    pub mime_types: Vec<String>,
    /// List only files whose name starts with this text.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub name_prefix: String,
    /// The sort order.
    #[arg(long, value_enum, default_value_t = Order::Newest)]
    pub order: Order,
    /// The maximum number of files to list.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: u64,
    /// List all files, without a limit.
    #[arg(long, conflicts_with = "limit")]
    pub all: bool,
    /// How many files to request per call.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=1_000))]
    pub page_size: Option<i32>,
    /// Continue an earlier list: the next_page_token of its JSON output, with the same filter and order.
    #[arg(long, value_name = "TOKEN", default_value = "", hide_default_value = true)]
    pub page_token: String,
    /// Include files in the trash.
    #[arg(long)]
    pub deleted: bool,
    /// Print the total number of matching files.
    #[arg(long)]
    pub total: bool,
    /// Print more columns.
    #[arg(long, short, conflicts_with = "json")]
    pub long: bool,
    /// Print one JSON object, with the files in the field files.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Order {
    /// The newest files first.
    Newest,
    /// The oldest files first.
    Oldest,
    /// By name, ascending.
    Name,
    /// By name, descending.
    NameDesc,
    /// The smallest files first.
    Smallest,
    /// The largest files first.
    Largest,
}

impl Order {
    fn as_order_by(self) -> &'static str {
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

/// Prints each page as it arrives, so memory is bounded by one page, whatever the length of the list.
pub(super) async fn run_ls(args: LsArgs, output: Output) -> Result<(), Failure> {
    let client = args.connection.connect().await?;
    let mut request = args.request();
    let mut remaining = if args.all { u64::MAX } else { args.limit };
    let mut list = ListFormatter { is_json: output.json, is_long: args.long, is_started: false };
    let (mut total, mut has_more) = (None, false);
    loop {
        let wanted = i32::try_from(remaining).unwrap_or(i32::MAX);
        request.page_size = args.page_size_for(wanted);
        let mut page = client.list_files(request.clone()).await?;
        if page.files.len() as u64 > remaining {
            if output.json {
                // The token of this page follows files that are not printed.
                request.page_size = wanted;
                page = client.list_files(request.clone()).await?;
            } else {
                page.files.truncate(usize::try_from(remaining).unwrap_or(usize::MAX));
                has_more = true;
            }
        }
        total = total.or_else(|| args.total.then(|| total_of(&page)));
        // Counting is expensive for the server, so only the first page requests it.
        request.include_total = false;
        remaining = remaining.saturating_sub(page.files.len() as u64);
        request.page_token = page.next_page_token;
        output.raw(&list.format_page(page.files)?)?;
        if remaining == 0 || request.page_token.is_empty() {
            break;
        }
    }
    if output.json {
        return output.raw(&list.format_json_end(&request.page_token, total));
    }
    if let Some((total_size, is_lower_bound)) = total {
        let at_least = if is_lower_bound { "at least " } else { "" };
        output.note(format_args!("{at_least}{total_size} files match"));
    }
    if has_more || !request.page_token.is_empty() {
        output.note("there are more files; pass --all or a higher --limit");
    }
    Ok(())
}

impl LsArgs {
    /// Returns the page size to request for `wanted` files. The server reads a limited number of files for each
    /// requested one, so a filter that few files match needs large pages, or many calls return few files.
    fn page_size_for(&self, wanted: i32) -> i32 {
        let is_filtered = !self.tags.is_empty()
            || !self.mime_types.is_empty()
            || !self.states.is_empty()
            || !self.category.is_empty()
            || !self.owner.is_empty()
            || !self.name_prefix.is_empty();
        match self.page_size {
            Some(page_size) => wanted.min(page_size),
            None if is_filtered => PAGE_SIZE_MAX,
            None => wanted.min(PAGE_SIZE_MAX),
        }
    }

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
        // The JSON contains every field, so request the fields that BASIC omits as well.
        let view = if self.json { FileView::Full } else { FileView::Basic };
        ListFilesRequest {
            page_size: 0,
            page_token: self.page_token.clone(),
            filter: Some(filter),
            order_by: self.order.as_order_by().to_owned(),
            view: view.into(),
            include_total: self.total,
            show_deleted: self.deleted || self.states.contains(&FileState::Deleted),
        }
    }
}

/// The number of matching files, and whether it is only a lower bound.
type Total = (i64, bool);

fn total_of(page: &ListFilesResponse) -> Total {
    (page.total_size.unwrap_or_default(), page.total_size_is_lower_bound)
}

const JSON_BEGIN: &[u8] = b"{\"files\":[";

/// Formats a list incrementally, as a table with fixed column widths or as one JSON object.
struct ListFormatter {
    is_json: bool,
    is_long: bool,
    is_started: bool,
}

impl ListFormatter {
    /// Formats one page.
    fn format_page(&mut self, files: Vec<File>) -> Result<Vec<u8>, Failure> {
        let mut text = Vec::new();
        for file in files {
            if self.is_json {
                text.extend_from_slice(if self.is_started { b"," } else { JSON_BEGIN });
                serde_json::to_writer(&mut text, &FileRecord::from(file))
                    .map_err(|e| Failure::Stdout(e.into()))?;
            } else {
                if !self.is_started {
                    text.extend(self.format_columns([
                        "ID", "SIZE", "STATE", "CREATED", "CATEGORY", "TYPE", "OWNER", "NAME",
                    ]));
                }
                text.extend(self.format_row(&file));
            }
            self.is_started = true;
        }
        Ok(text)
    }

    /// Formats the end of the JSON object.
    fn format_json_end(&self, next_page_token: &str, total: Option<Total>) -> Vec<u8> {
        let mut rest = json!({ "next_page_token": next_page_token });
        if let Some((total_size, is_lower_bound)) = total {
            rest["total_size"] = json!(total_size);
            rest["total_size_is_lower_bound"] = json!(is_lower_bound);
        }
        let mut text = if self.is_started { Vec::new() } else { JSON_BEGIN.to_vec() };
        // Without its opening brace, this object is the end of the object that the list started.
        text.extend(format!("],{}\n", rest.to_string().trim_start_matches('{')).into_bytes());
        text
    }

    fn format_row(&self, file: &File) -> Vec<u8> {
        let state = file.state().as_str_name().trim_start_matches("FILE_STATE_").to_lowercase();
        self.format_columns([
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

    fn format_columns(
        &self,
        [id, size, state, created, category, mime_type, owner, name]: [&str; 8],
    ) -> Vec<u8> {
        let mut line = format!("{id:<36}  {size:>10}  {state:<11}  {created:<20}  ");
        if self.is_long {
            line += &format!("{category:<20}  {mime_type:<24}  {owner:<24}  ");
        }
        line += name;
        line.push('\n');
        line.into_bytes()
    }
}

fn parse_state(text: &str) -> Result<FileState, String> {
    FileState::from_str_name(&format!("FILE_STATE_{}", text.to_uppercase()))
        .filter(|state| *state != FileState::Unspecified)
        .ok_or_else(|| {
            "unknown state; use pending, processing, available, quarantined, unscannable, deleted, archived or error"
                .to_owned()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json_of(pages: &[&[&str]], total: Option<Total>) -> serde_json::Value {
        let mut list = ListFormatter { is_json: true, is_long: false, is_started: false };
        let mut text = Vec::new();
        for page in pages {
            let files = page.iter().map(|id| File { id: (*id).to_owned(), ..File::default() }).collect();
            text.extend(list.format_page(files).unwrap());
        }
        text.extend(list.format_json_end("next", total));
        serde_json::from_slice(&text).unwrap()
    }

    #[test]
    fn filtered_list_requests_larger_pages_than_it_prints() {
        use clap::Parser as _;
        #[derive(clap::Parser)]
        struct Command {
            #[command(flatten)]
            args: LsArgs,
        }
        let page_size = |arguments: &[&str]| {
            let command = Command::try_parse_from([&["ls"], arguments].concat()).unwrap();
            command.args.page_size_for(10)
        };
        assert_eq!(page_size(&[]), 10);
        assert_eq!(page_size(&["--tag", "rare"]), PAGE_SIZE_MAX);
        assert_eq!(page_size(&["--tag", "rare", "--page-size", "5"]), 5);
    }

    #[test]
    fn pages_form_one_json_document() {
        let list = json_of(&[&["1", "2"], &[], &["3"]], Some((3, false)));
        let ids: Vec<_> =
            list["files"].as_array().unwrap().iter().map(|file| file["id"].as_str().unwrap()).collect();
        assert_eq!(ids, ["1", "2", "3"]);
        assert_eq!((&list["next_page_token"], &list["total_size"]), (&json!("next"), &json!(3)));

        let empty = json_of(&[], None);
        assert_eq!(empty, json!({ "files": [], "next_page_token": "next" }));
    }

    #[test]
    fn table_has_one_header_and_one_line_per_file() {
        let mut list = ListFormatter { is_json: false, is_long: false, is_started: false };
        let file = File { id: "1".into(), size_bytes: 2_048, name: "a\u{1b}b".into(), ..File::default() };
        let text = String::from_utf8(
            [list.format_page(vec![file.clone()]), list.format_page(vec![file])].map(Result::unwrap).concat(),
        );
        let text = text.unwrap();
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["ID", "SIZE", "STATE", "CREATED", "NAME"]);
        assert_eq!(lines[1], ["1", "2.0", "KiB", "unspecified", "-", "a\\u{1b}b"]);
        assert_eq!(lines.len(), 3);
    }
}
