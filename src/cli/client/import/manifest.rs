//! Import manifests: CSV or JSON Lines files that list objects with their metadata.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::PathBuf,
};

use serde::Deserialize;

use super::{
    super::{failure::Failure, human},
    csv::{CsvReader, CsvRecord},
};
use crate::proto::v1::{EntityRef, ImportItem, UploadSpec, import_item::Source};

/// The maximum number of problems in one error message.
const PROBLEMS_MAX: usize = 10;
const COLUMNS: [&str; 7] = ["key", "url", "legacy_id", "owner", "category", "create_time", "entity"];

/// A manifest file and its format.
#[derive(Debug, Clone)]
pub(super) struct Manifest {
    path: PathBuf,
    is_csv: bool,
}

/// One object of a manifest. Empty fields are not set.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Row {
    key: String,
    url: String,
    legacy_id: String,
    owner: String,
    category: String,
    create_time: String,
    entity: String,
}

/// The number of an invalid line, and the problem.
type LineProblem = (usize, String);
type Rows = Box<dyn Iterator<Item = Result<(usize, Row), LineProblem>> + Send>;

impl Manifest {
    /// Selects the format by the extension of the file name.
    ///
    /// # Errors
    /// Returns [`Failure::Usage`] for an unknown extension.
    pub(super) fn open(path: PathBuf) -> Result<Self, Failure> {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        match extension.to_ascii_lowercase().as_str() {
            "csv" => Ok(Self { path, is_csv: true }),
            "jsonl" | "ndjson" => Ok(Self { path, is_csv: false }),
            _ => Err(Failure::Usage(format!(
                "unknown manifest format of {}; use a .csv, .jsonl or .ndjson file",
                path.display()
            ))),
        }
    }

    /// Validates the whole manifest, and returns the number of its objects.
    ///
    /// # Errors
    /// Returns [`Failure::Usage`] with the first 10 invalid lines.
    pub(super) fn validate(&self) -> Result<u64, Failure> {
        let (mut count, mut problems) = (0, Vec::new());
        for row in self.rows()? {
            match row.and_then(parse_item) {
                Ok(_) => count += 1,
                Err(problem) => problems.push(problem),
            }
            if problems.len() == PROBLEMS_MAX {
                break;
            }
        }
        if problems.is_empty() { Ok(count) } else { Err(self.usage_error(&problems)) }
    }

    /// Returns an iterator over the objects, which reads the file incrementally.
    pub(super) fn items(
        &self,
    ) -> Result<impl Iterator<Item = Result<ImportItem, Failure>> + Send + use<>, Failure> {
        let manifest = self.clone();
        let rows = self.rows()?;
        Ok(rows.map(move |row| row.and_then(parse_item).map_err(|problem| manifest.usage_error(&[problem]))))
    }

    fn rows(&self) -> Result<Rows, Failure> {
        let file = File::open(&self.path);
        let file = file.map_err(Failure::local_io(format!("read {}", self.path.display())))?;
        let reader = BufReader::new(file);
        if self.is_csv {
            csv_rows(reader).map_err(|problem| self.usage_error(&[problem]))
        } else {
            Ok(json_rows(reader))
        }
    }

    fn usage_error(&self, problems: &[LineProblem]) -> Failure {
        let problems: Vec<String> =
            problems.iter().map(|(line, problem)| format!("line {line}: {problem}")).collect();
        Failure::Usage(format!("{} is invalid: {}", self.path.display(), problems.join("; ")))
    }
}

fn json_rows(reader: impl BufRead + Send + 'static) -> Rows {
    let numbered = reader.lines().enumerate().map(|(index, text)| (index + 1, text));
    let row = |(line, text): (usize, std::io::Result<String>)| {
        let text = text.map_err(|error| (line, error.to_string()));
        match text {
            Ok(text) if text.trim().is_empty() => None,
            Ok(text) => {
                let row = serde_json::from_str(&text).map_err(|error| (line, error.to_string()));
                Some(row.map(|row| (line, row)))
            }
            Err(problem) => Some(Err(problem)),
        }
    };
    Box::new(numbered.filter_map(row))
}

/// Reads rows of a CSV file whose first record names the columns.
fn csv_rows(reader: impl BufRead + Send + 'static) -> Result<Rows, LineProblem> {
    let mut records = CsvReader::new(reader);
    let Some(CsvRecord { line, fields: columns }) = records.read_record()? else {
        return Err((1, format!("the header is missing; name columns of {}", COLUMNS.join(", "))));
    };
    let mut places = Vec::new();
    for column in &columns {
        let place = COLUMNS.iter().position(|known| *known == column.trim());
        match place {
            Some(place) if !places.contains(&place) => places.push(place),
            Some(_) => return Err((line, format!("column `{column}` appears twice"))),
            None => {
                return Err((line, format!("unknown column `{column}`; use {}", COLUMNS.join(", "))));
            }
        }
    }
    let mut has_failed = false;
    Ok(Box::new(std::iter::from_fn(move || {
        // After a malformed record, the start of the next one is unknown.
        if has_failed {
            return None;
        }
        match records.read_record() {
            Ok(record) => record.map(|record| csv_row(record, &places)),
            Err(problem) => {
                has_failed = true;
                Some(Err(problem))
            }
        }
    })))
}

fn csv_row(CsvRecord { line, fields }: CsvRecord, places: &[usize]) -> Result<(usize, Row), LineProblem> {
    if fields.len() != places.len() {
        return Err((
            line,
            format!("the record has {} fields; the header has {} columns", fields.len(), places.len()),
        ));
    }
    let mut values: [String; COLUMNS.len()] = Default::default();
    for (place, field) in places.iter().zip(fields) {
        values[*place] = field;
    }
    let [key, url, legacy_id, owner, category, create_time, entity] = values;
    Ok((line, Row { key, url, legacy_id, owner, category, create_time, entity }))
}

fn parse_item((line, row): (usize, Row)) -> Result<ImportItem, LineProblem> {
    let source = match (row.key.is_empty(), row.url.is_empty()) {
        (false, true) => Source::ObjectKey(row.key),
        (true, false) => Source::Url(row.url),
        _ => return Err((line, "exactly one of key and url is required".to_owned())),
    };
    let create_time = match row.create_time.as_str() {
        "" => None,
        text => Some(
            human::parse_time(text)
                .map(human::timestamp)
                .map_err(|advice| (line, format!("invalid create_time `{text}`; {advice}")))?,
        ),
    };
    let attachments = match row.entity.as_str() {
        "" => Vec::new(),
        text => vec![parse_entity(text).ok_or_else(|| {
            (line, format!("invalid entity `{text}`; use TYPE:ID or TYPE:ID:FIELD, such as lesson:42 or lesson:42:cover"))
        })?],
    };
    let spec = UploadSpec { category: row.category, attachments, ..UploadSpec::default() };
    Ok(ImportItem {
        source: Some(source),
        legacy_id: row.legacy_id,
        owner_id: row.owner,
        create_time,
        spec: Some(spec),
    })
}

/// Parses `type:id` or `type:id:field`.
fn parse_entity(text: &str) -> Option<EntityRef> {
    let (r#type, rest) = text.split_once(':')?;
    let (id, field) = rest.split_once(':').unwrap_or((rest, ""));
    let is_complete = !r#type.is_empty() && !id.is_empty();
    is_complete.then(|| EntityRef { r#type: r#type.to_owned(), id: id.to_owned(), field: field.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use prost_types::Timestamp;

    use super::*;

    fn open_manifest(name: &str, text: &str) -> (tempfile::TempDir, Manifest) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        (directory, Manifest::open(path).unwrap())
    }

    fn error_of(name: &str, text: &str) -> String {
        open_manifest(name, text).1.validate().unwrap_err().to_string()
    }

    #[test]
    fn csv_and_jsonl_give_the_same_items() {
        let csv = "legacy_id,key,owner,entity,create_time,category\n\
                   7,\"a, b.pdf\",ann,lesson:42:cover,2019-12-31T23:59:59.5+01:00,report\n,c,,,,\n";
        let json = "{\"legacy_id\": \"7\", \"key\": \"a, b.pdf\", \"owner\": \"ann\", \"category\": \"report\",\
                    \"entity\": \"lesson:42:cover\", \"create_time\": \"2019-12-31T22:59:59.5Z\"}\n\n{\"key\": \"c\"}";
        let read = |name: &str, text: &str| {
            let (_directory, manifest) = open_manifest(name, text);
            assert_eq!(manifest.validate().unwrap(), 2);
            manifest.items().unwrap().collect::<Result<Vec<_>, _>>().unwrap()
        };
        let items = read("a.CSV", csv);
        assert_eq!(items, read("a.jsonl", json));
        let EntityRef { r#type, id, field } = items[0].spec.as_ref().unwrap().attachments[0].clone();
        assert_eq!([r#type, id, field], ["lesson", "42", "cover"]);
        assert_eq!(items[0].create_time, Some(Timestamp { seconds: 1_577_833_199, nanos: 500_000_000 }));
        assert_eq!(items[1].source, Some(Source::ObjectKey("c".to_owned())));
        assert_eq!(items[1].create_time, None);
    }

    #[test]
    fn error_lists_all_invalid_lines() {
        let error = error_of(
            "a.csv",
            "key,url,create_time,entity\na,https://b,,\n,,,\na,,yesterday,\na,,,lesson\na,\n",
        );
        for line in 2..=6 {
            assert!(error.contains(&format!("line {line}: ")), "{error}");
        }
        let error = error_of("a.jsonl", "{\"key\": \"a\"}\n{\"kye\": \"a\"}\n[]\n");
        assert!(error.contains("line 2: ") && error.contains("kye") && error.contains("line 3: "), "{error}");
        let error = error_of("a.jsonl", &"x\n".repeat(100));
        assert!(error.contains("line 10: ") && !error.contains("line 11: "), "{error}");
        assert!(error_of("a.csv", "").contains("legacy_id"));
        assert!(error_of("a.csv", "key,id\na,1").contains("`id`"));
        assert!(error_of("a.csv", "key,key\na,1").contains("twice"));
        let error = error_of("a.csv", "key\na\n\"b\nc\n");
        assert_eq!(error.matches("line ").count(), 1, "{error}");
    }

    #[test]
    fn unknown_format_and_missing_file_are_rejected() {
        assert!(Manifest::open("a.xlsx".into()).is_err());
        let missing = Manifest::open("missing.csv".into()).unwrap().validate().unwrap_err();
        assert!(missing.to_string().contains("missing.csv"), "{missing}");
    }
}
