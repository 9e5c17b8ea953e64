//! Finds the files that were imported from source objects.

use std::collections::HashMap;

use url::Url;

use crate::{
    app::{App, Error, access::require_visible},
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
        import_origin::{LEGACY_ID_CHARACTERS_MAX, import_source_digest},
        text,
        violations::Violations,
    },
};

/// The maximum number of keys, URLs and legacy ids in one lookup.
pub const LOOKUP_KEYS_MAX: usize = 100;
/// The maximum number of files returned per legacy id. A meaningful id has one or a few.
const FILES_PER_LEGACY_ID_MAX: usize = 10;

/// A lookup of imported files.
#[derive(Debug, Clone, Default)]
pub struct ImportedFileLookup {
    /// The source of the keys and URLs. It may no longer be configured.
    pub source: String,
    /// Object keys, as imported.
    pub object_keys: Vec<String>,
    /// URLs, as imported.
    pub urls: Vec<String>,
    /// Ids that files had in the previous system.
    pub legacy_ids: Vec<String>,
    /// Whether to include files in the trash.
    pub is_deleted_shown: bool,
}

/// A file and its source object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedFile {
    pub file_id: FileId,
    pub source: String,
    pub key: String,
    pub legacy_id: String,
    pub import_time: Timestamp,
}

/// The result of a lookup.
#[derive(Debug)]
pub struct FoundImportedFiles {
    /// The files, ordered by legacy id and then by file id.
    pub files: Vec<ImportedFile>,
    /// Whether a legacy id has more files than the maximum.
    pub has_more: bool,
}

/// Finds the files that these objects became, as far as the caller may see them.
///
/// # Errors
/// Returns `Invalid` with every violation.
pub async fn find_imported_files(
    app: &App,
    caller: &Caller,
    lookup: ImportedFileLookup,
) -> Result<FoundImportedFiles, Error> {
    let keys = parse_lookup(&lookup)?;
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?;
    let found = read_imported_files(&mut tx, caller, &lookup, &keys).await;
    tx.finish(found).await
}

/// Returns the digest of each key and URL with its text, or all violations.
fn parse_lookup(lookup: &ImportedFileLookup) -> Result<HashMap<Digest, String>, Violations> {
    let mut violations = Violations::new();
    let ImportedFileLookup { source, object_keys, urls, legacy_ids, .. } = lookup;
    let count = object_keys.len() + urls.len() + legacy_ids.len();
    if count == 0 || count > LOOKUP_KEYS_MAX {
        let field = if object_keys.is_empty() && urls.is_empty() { "legacy_ids" } else { "object_keys" };
        violations
            .add(field, format!("must have 1 to {LOOKUP_KEYS_MAX} keys, URLs and ids in total, has {count}"));
        return Err(violations);
    }
    if source.is_empty() && legacy_ids.len() < count {
        violations.add("source", "is required to look up keys and URLs");
    }
    for (index, id) in legacy_ids.iter().enumerate() {
        violations.ok_or_add(&format!("legacy_ids[{index}]"), text::check_line(id, LEGACY_ID_CHARACTERS_MAX));
    }
    let mut keys: HashMap<Digest, String> =
        object_keys.iter().map(|key| (import_source_digest(source, key), key.clone())).collect();
    for (index, text) in urls.iter().enumerate() {
        let url =
            violations.ok_or_add(&format!("urls[{index}]"), Url::parse(text).map_err(|_| "must be a URL"));
        if let Some(mut url) = url {
            url.set_fragment(None);
            keys.insert(import_source_digest(source, url.as_str()), text.clone());
        }
    }
    violations.into_result().map(|()| keys)
}

async fn read_imported_files(
    tx: &mut TenantTx,
    caller: &Caller,
    lookup: &ImportedFileLookup,
    keys: &HashMap<Digest, String>,
) -> Result<FoundImportedFiles, Error> {
    let digests: Vec<Digest> = keys.keys().copied().collect();
    // Read one more row to find out whether there are more.
    let limit = FILES_PER_LEGACY_ID_MAX + 1;
    let rows =
        imports::list_matching(tx, &digests, &lookup.legacy_ids, limit, lookup.is_deleted_shown).await?;
    let ids: Vec<FileId> = rows.iter().map(|row| row.file_id).collect();
    let visible = files::get_all_basic(tx, &ids).await?.into_iter();
    let visible = visible.filter_map(|found| require_visible(caller, Some(found)).ok());
    let visible = visible.filter(|file| lookup.is_deleted_shown || file.trash.is_none());
    let visible: HashMap<FileId, File> = visible.map(|file| (file.id, file)).collect();
    let mut counts: HashMap<&str, usize> = lookup.legacy_ids.iter().map(|id| (id.as_str(), 0)).collect();
    let mut found = FoundImportedFiles { files: Vec::new(), has_more: false };
    for row in rows {
        let by_key = keys.get(&row.source_sha256);
        let count = counts.get_mut(row.legacy_id.as_str());
        let is_beyond = count.is_some_and(|count| {
            *count += 1;
            *count >= limit
        });
        found.has_more |= is_beyond;
        if (by_key.is_some() || !is_beyond) && visible.contains_key(&row.file_id) {
            found.files.push(new_imported_file(row, by_key));
        }
    }
    Ok(found)
}

/// Converts a row. Without the requested key, uses the recorded one, which lacks the query of a URL.
fn new_imported_file(row: ImportRow, requested_key: Option<&String>) -> ImportedFile {
    let (source, key) = row.source.split_once(':').unwrap_or((&row.source, ""));
    ImportedFile {
        file_id: row.file_id,
        source: source.to_owned(),
        key: requested_key.cloned().unwrap_or_else(|| key.to_owned()),
        legacy_id: row.legacy_id,
        import_time: row.create_time,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_all_violations_of_a_lookup() {
        let fields = |lookup: ImportedFileLookup| -> Vec<String> {
            match parse_lookup(&lookup) {
                Ok(_) => Vec::new(),
                Err(violations) => violations.iter().map(|violation| violation.field.clone()).collect(),
            }
        };
        let some = |count: usize| (0..count).map(|number| number.to_string()).collect::<Vec<_>>();
        assert_eq!(fields(ImportedFileLookup::default()), ["legacy_ids"]);
        assert_eq!(
            fields(ImportedFileLookup { legacy_ids: some(101), ..Default::default() }),
            ["legacy_ids"]
        );
        let keys = ImportedFileLookup { object_keys: some(50), urls: some(51), ..Default::default() };
        assert_eq!(fields(keys), ["object_keys"]);
        let keys = ImportedFileLookup { object_keys: some(1), urls: some(1), ..Default::default() };
        assert_eq!(fields(keys), ["source", "urls[0]"]);
        assert_eq!(fields(ImportedFileLookup { legacy_ids: some(100), ..Default::default() }), [""; 0]);
        let ids = vec!["7".to_owned(), "\0".to_owned(), String::new()];
        let ids = ImportedFileLookup { legacy_ids: ids, ..Default::default() };
        assert_eq!(fields(ids), ["legacy_ids[1]", "legacy_ids[2]"]);
    }
}
