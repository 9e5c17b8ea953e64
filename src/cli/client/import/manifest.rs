//! A manifest: a file that names objects, and what is known of each.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::PathBuf,
};

use chrono::DateTime;
use prost_types::Timestamp;
use serde::Deserialize;

use super::{
    super::failure::Failure,
    csv::{Record, Records},
};
use crate::proto::v1::{EntityRef, ImportItem, UploadSpec, import_item::Source};

/// How many problems are told at once.
const PROBLEMS_MAX: usize = 10;
const COLUMNS: [&str; 7] = ["key", "url", "legacy_id", "owner", "category", "create_time", "entity"];

/// A manifest, and how it is written.
#[derive(Debug, Clone)]
pub(super) struct Manifest {
    path: PathBuf,
    is_csv: bool,
}

/// What one line says. What is empty is not known.
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

/// A line that makes no sense, and why.
type Wrong = (usize, String);
type Rows = Box<dyn Iterator<Item = Result<(usize, Row), Wrong>> + Send>;

impl Manifest {
    /// How it is written is told by its name.
    pub(super) fn open(path: PathBuf) -> Result<Self, Failure> {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        match extension.to_ascii_lowercase().as_str() {
            "csv" => Ok(Self { path, is_csv: true }),
            "jsonl" | "ndjson" => Ok(Self { path, is_csv: false }),
            _ => Err(Failure::Usage(format!("{} is neither a .csv nor a .jsonl file", path.display()))),
        }
    }

    /// Reads all of it, and answers how many objects it names.
    pub(super) fn check(&self) -> Result<u64, Failure> {
        let (mut count, mut problems) = (0, Vec::new());
        for row in self.rows()? {
            match row.and_then(item) {
                Ok(_) => count += 1,
                Err(wrong) => problems.push(wrong),
            }
            if problems.len() == PROBLEMS_MAX {
                break;
            }
        }
        if problems.is_empty() { Ok(count) } else { Err(self.unusable(&problems)) }
    }

    /// What it names, read as it is asked for.
    pub(super) fn items(
        &self,
    ) -> Result<impl Iterator<Item = Result<ImportItem, Failure>> + Send + use<>, Failure> {
        let manifest = self.clone();
        let rows = self.rows()?;
        Ok(rows.map(move |row| row.and_then(item).map_err(|wrong| manifest.unusable(&[wrong]))))
    }

    fn rows(&self) -> Result<Rows, Failure> {
        let file = File::open(&self.path);
        let file = file.map_err(Failure::local(format!("read {}", self.path.display())))?;
        let reader = BufReader::new(file);
        if self.is_csv {
            csv_rows(reader).map_err(|wrong| self.unusable(&[wrong]))
        } else {
            Ok(json_rows(reader))
        }
    }

    fn unusable(&self, problems: &[Wrong]) -> Failure {
        let said: Vec<String> =
            problems.iter().map(|(line, wrong)| format!("line {line}: {wrong}")).collect();
        Failure::Usage(format!("{} cannot be used: {}", self.path.display(), said.join("; ")))
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
            Err(wrong) => Some(Err(wrong)),
        }
    };
    Box::new(numbered.filter_map(row))
}

/// The first record names the columns.
fn csv_rows(reader: impl BufRead + Send + 'static) -> Result<Rows, Wrong> {
    let mut records = Records::of(reader);
    let Some(Record { line, fields: columns }) = records.next()? else {
        return Err((1, format!("must name its columns, of {}", COLUMNS.join(", "))));
    };
    let mut places = Vec::new();
    for column in &columns {
        let place = COLUMNS.iter().position(|known| *known == column.trim());
        match place {
            Some(place) if !places.contains(&place) => places.push(place),
            Some(_) => return Err((line, format!("names the column `{column}` twice"))),
            None => {
                return Err((
                    line,
                    format!("has no known column `{column}`; there are {}", COLUMNS.join(", ")),
                ));
            }
        }
    }
    let mut is_lost = false;
    Ok(Box::new(std::iter::from_fn(move || {
        // Behind what cannot be read, nobody knows where the next record begins.
        if is_lost {
            return None;
        }
        match records.next() {
            Ok(record) => record.map(|record| csv_row(record, &places)),
            Err(wrong) => {
                is_lost = true;
                Some(Err(wrong))
            }
        }
    })))
}

fn csv_row(Record { line, fields }: Record, places: &[usize]) -> Result<(usize, Row), Wrong> {
    if fields.len() != places.len() {
        return Err((line, format!("has {} fields, and there are {} columns", fields.len(), places.len())));
    }
    let mut values: [String; COLUMNS.len()] = Default::default();
    for (place, field) in places.iter().zip(fields) {
        values[*place] = field;
    }
    let [key, url, legacy_id, owner, category, create_time, entity] = values;
    Ok((line, Row { key, url, legacy_id, owner, category, create_time, entity }))
}

fn item((line, row): (usize, Row)) -> Result<ImportItem, Wrong> {
    let source = match (row.key.is_empty(), row.url.is_empty()) {
        (false, true) => Source::ObjectKey(row.key),
        (true, false) => Source::Url(row.url),
        _ => return Err((line, "must name a key or a url, and not both".to_owned())),
    };
    let create_time = match row.create_time.as_str() {
        "" => None,
        text => Some(time(text).ok_or_else(|| {
            (line, format!("has a create_time that is none: {text}; write it as 2019-12-31T00:00:00Z"))
        })?),
    };
    let attachments = match row.entity.as_str() {
        "" => Vec::new(),
        text => vec![entity(text).ok_or_else(|| {
            (line, format!("has an entity that is none: {text}; write it as lesson:42 or as lesson:42:cover"))
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

fn time(text: &str) -> Option<Timestamp> {
    let time = DateTime::parse_from_rfc3339(text).ok()?;
    // A leap second is the last moment before the next one.
    let nanos = i32::try_from(time.timestamp_subsec_nanos().min(999_999_999)).ok()?;
    Some(Timestamp { seconds: time.timestamp(), nanos })
}

/// `type:id` or `type:id:field`.
fn entity(text: &str) -> Option<EntityRef> {
    let (r#type, rest) = text.split_once(':')?;
    let (id, field) = rest.split_once(':').unwrap_or((rest, ""));
    let is_named = !r#type.is_empty() && !id.is_empty();
    is_named.then(|| EntityRef { r#type: r#type.to_owned(), id: id.to_owned(), field: field.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn manifest(name: &str, text: &str) -> (tempfile::TempDir, Manifest) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        (directory, Manifest::open(path).unwrap())
    }

    fn refused(name: &str, text: &str) -> String {
        manifest(name, text).1.check().unwrap_err().to_string()
    }

    #[test]
    fn both_ways_of_writing_say_the_same() {
        let csv = "legacy_id,key,owner,entity,create_time,category\n\
                   7,\"a, b.pdf\",ann,lesson:42:cover,2019-12-31T23:59:59.5+01:00,report\n,c,,,,\n";
        let json = "{\"legacy_id\": \"7\", \"key\": \"a, b.pdf\", \"owner\": \"ann\", \"category\": \"report\",\
                    \"entity\": \"lesson:42:cover\", \"create_time\": \"2019-12-31T22:59:59.5Z\"}\n\n{\"key\": \"c\"}";
        let read = |name: &str, text: &str| {
            let (_directory, manifest) = manifest(name, text);
            assert_eq!(manifest.check().unwrap(), 2);
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
    fn every_line_that_makes_no_sense_is_named() {
        let said = refused(
            "a.csv",
            "key,url,create_time,entity\na,https://b,,\n,,,\na,,yesterday,\na,,,lesson\na,\n",
        );
        for line in 2..=6 {
            assert!(said.contains(&format!("line {line}: ")), "{said}");
        }
        let said = refused("a.jsonl", "{\"key\": \"a\"}\n{\"kye\": \"a\"}\n[]\n");
        assert!(said.contains("line 2: ") && said.contains("kye") && said.contains("line 3: "), "{said}");
        let said = refused("a.jsonl", &"x\n".repeat(100));
        assert!(said.contains("line 10: ") && !said.contains("line 11: "), "{said}");
        assert!(refused("a.csv", "").contains("legacy_id"));
        assert!(refused("a.csv", "key,id\na,1").contains("`id`"));
        assert!(refused("a.csv", "key,key\na,1").contains("twice"));
        let said = refused("a.csv", "key\na\n\"b\nc\n");
        assert_eq!(said.matches("line ").count(), 1, "{said}");
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        assert!(Manifest::open("a.xlsx".into()).is_err());
        let missing = Manifest::open("missing.csv".into()).unwrap().check().unwrap_err();
        assert!(missing.to_string().contains("missing.csv"), "{missing}");
    }
}
