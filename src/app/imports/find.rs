//! Finds the files that objects of before became.

use std::collections::HashMap;

use url::Url;

use crate::{
    app::{App, Error, access::seen},
    db::{
        TenantTx, Viewer, files,
        imports::{self, ImportRow},
    },
    domain::{
        caller::Caller,
        clock::Timestamp,
        digest::Digest,
        file::File,
        ids::FileId,
        imported::{LEGACY_ID_CHARACTERS_MAX, source_digest},
        text,
        violations::Violations,
    },
};

/// How many old keys, URLs and ids one lookup may name.
const NAMES_MAX: usize = 100;
/// How many files of one old id are looked at. An id that means something has one or a few.
const FILES_PER_LEGACY_ID_MAX: usize = 10;

/// What to look for.
#[derive(Debug, Clone, Default)]
pub struct ImportLookup {
    /// The name of the source that keys and URLs are of. It need not be configured any more.
    pub source: String,
    /// Keys, as they were imported.
    pub object_keys: Vec<String>,
    /// URLs, as they were imported.
    pub urls: Vec<String>,
    /// Ids that files had before.
    pub legacy_ids: Vec<String>,
    /// Whether files in the trash are wanted too.
    pub is_deleted_shown: bool,
}

/// A file, and what it was before.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of the contract, which explains them")]
pub struct ImportedFile {
    pub file_id: FileId,
    pub source: String,
    pub key: String,
    pub legacy_id: String,
    pub import_time: Timestamp,
}

/// What was found.
#[derive(Debug)]
pub struct FoundImports {
    /// The files, by their old ids and then by their new ones.
    pub files: Vec<ImportedFile>,
    /// An old id has more files than are looked at.
    pub has_more: bool,
}

/// The files that these objects became, as far as the caller may see them.
///
/// # Errors
/// `Invalid`.
pub async fn find(app: &App, caller: &Caller, lookup: ImportLookup) -> Result<FoundImports, Error> {
    let asked = asked(&lookup)?;
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::caller(caller)).await?;
    let found = read(&mut tx, caller, &lookup, &asked).await;
    tx.finish(found).await
}

/// What stands for each key and URL, with its text; all that is wrong otherwise.
fn asked(lookup: &ImportLookup) -> Result<HashMap<Digest, String>, Violations> {
    let mut wrong = Violations::new();
    let ImportLookup { source, object_keys, urls, legacy_ids, .. } = lookup;
    let count = object_keys.len() + urls.len() + legacy_ids.len();
    if count == 0 || count > NAMES_MAX {
        let field = if object_keys.is_empty() && urls.is_empty() { "legacy_ids" } else { "object_keys" };
        wrong.add(field, format!("must be 1 to {NAMES_MAX} keys, URLs and ids together, are {count}"));
        return Err(wrong);
    }
    if source.is_empty() && legacy_ids.len() < count {
        wrong.add("source", "must name the source that keys and URLs are of");
    }
    for (place, id) in legacy_ids.iter().enumerate() {
        wrong.take(&format!("legacy_ids[{place}]"), text::line(id, LEGACY_ID_CHARACTERS_MAX));
    }
    let mut asked: HashMap<Digest, String> =
        object_keys.iter().map(|key| (source_digest(source, key), key.clone())).collect();
    for (place, text) in urls.iter().enumerate() {
        let url = wrong.take(&format!("urls[{place}]"), Url::parse(text).map_err(|_| "must be a URL"));
        if let Some(mut url) = url {
            url.set_fragment(None);
            asked.insert(source_digest(source, url.as_str()), text.clone());
        }
    }
    wrong.into_result().map(|()| asked)
}

async fn read(
    tx: &mut TenantTx,
    caller: &Caller,
    lookup: &ImportLookup,
    asked: &HashMap<Digest, String>,
) -> Result<FoundImports, Error> {
    let digests: Vec<Digest> = asked.keys().copied().collect();
    // One more tells whether there are more.
    let limit = FILES_PER_LEGACY_ID_MAX + 1;
    let rows = imports::find_all(tx, &digests, &lookup.legacy_ids, limit).await?;
    let ids: Vec<FileId> = rows.iter().map(|row| row.file_id).collect();
    let visible = files::get_all(tx, &ids).await?.into_iter();
    let visible = visible.filter_map(|found| seen(caller, Some(found)).ok());
    let visible = visible.filter(|file| lookup.is_deleted_shown || file.trash.is_none());
    let visible: HashMap<FileId, File> = visible.map(|file| (file.id, file)).collect();
    let mut counts: HashMap<&str, usize> = lookup.legacy_ids.iter().map(|id| (id.as_str(), 0)).collect();
    let mut found = FoundImports { files: Vec::new(), has_more: false };
    for row in rows {
        let by_key = asked.get(&row.source_sha256);
        let count = counts.get_mut(row.legacy_id.as_str());
        let is_beyond = count.is_some_and(|count| {
            *count += 1;
            *count >= limit
        });
        found.has_more |= is_beyond;
        if (by_key.is_some() || !is_beyond) && visible.contains_key(&row.file_id) {
            found.files.push(imported(row, by_key));
        }
    }
    Ok(found)
}

/// The key is told as it was asked for, if it was: of a URL only a part is known otherwise.
fn imported(row: ImportRow, asked: Option<&String>) -> ImportedFile {
    let (source, key) = row.source.split_once(':').unwrap_or((&row.source, ""));
    ImportedFile {
        file_id: row.file_id,
        source: source.to_owned(),
        key: asked.cloned().unwrap_or_else(|| key.to_owned()),
        legacy_id: row.legacy_id,
        import_time: row.create_time,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_wrong_with_a_lookup_is_said_at_once() {
        let fields = |lookup: ImportLookup| -> Vec<String> {
            match asked(&lookup) {
                Ok(_) => Vec::new(),
                Err(wrong) => wrong.iter().map(|one| one.field.clone()).collect(),
            }
        };
        let some = |count: usize| (0..count).map(|number| number.to_string()).collect::<Vec<_>>();
        assert_eq!(fields(ImportLookup::default()), ["legacy_ids"]);
        assert_eq!(fields(ImportLookup { legacy_ids: some(101), ..Default::default() }), ["legacy_ids"]);
        let keys = ImportLookup { object_keys: some(50), urls: some(51), ..Default::default() };
        assert_eq!(fields(keys), ["object_keys"]);
        let keys = ImportLookup { object_keys: some(1), urls: some(1), ..Default::default() };
        assert_eq!(fields(keys), ["source", "urls[0]"]);
        assert_eq!(fields(ImportLookup { legacy_ids: some(100), ..Default::default() }), [""; 0]);
        let ids = vec!["7".to_owned(), "\0".to_owned(), String::new()];
        let ids = ImportLookup { legacy_ids: ids, ..Default::default() };
        assert_eq!(fields(ids), ["legacy_ids[1]", "legacy_ids[2]"]);
    }
}
