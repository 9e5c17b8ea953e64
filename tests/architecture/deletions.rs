//! One function deletes objects, so that no deletion bypasses the owner of the store and
//! `storage.deletes_enabled`.

use crate::{
    assert_none,
    sources::{Source, production_code, rust_files_in, source_file, test_file_paths},
};

/// The methods of the storage port that delete something.
const METHODS: [&str; 3] = ["abort_multipart", "delete", "delete_batch"];

/// The files that may call them. The port itself is exempt: its decorators and adapters forward calls.
const CALLERS: [&str; 2] = ["src/app/owner/delete.rs", "src/app/storage/delete_objects.rs"];

/// Paths below which `delete` is not a method of the port.
const EXEMPT: [&str; 4] = ["src/storage/", "src/db/", "src/client/", "src/cli/client/"];

fn find_deletions(source: &Source) -> Vec<String> {
    if CALLERS.contains(&source.path.as_str()) || EXEMPT.iter().any(|path| source.path.starts_with(path)) {
        return Vec::new();
    }
    let code: String = production_code(&source.text).split_whitespace().collect();
    let calls = METHODS.iter().filter(|method| code.contains(&format!(".{method}(")));
    calls.map(|method| format!("{}: calls `{method}`; call `delete_from_store`", source.path)).collect()
}

#[test]
fn one_function_deletes_objects() {
    let sources = rust_files_in("src");
    let tests = test_file_paths(&sources);
    let sources = sources.iter().filter(|source| !tests.contains(&source.path));
    assert_none(&sources.flat_map(find_deletions).collect::<Vec<_>>());
}

#[test]
fn deletions_that_bypass_the_function_are_found() {
    for call in
        ["store.delete(&key).await", "self.to\n    .abort_multipart(key, &id)", "store.delete_batch(&keys)"]
    {
        assert_eq!(find_deletions(&source_file("src/app/x.rs", call)).len(), 1, "{call}");
    }
    assert_none(&find_deletions(&source_file("src/app/x.rs", "blobs::delete(&mut tx, id).await")));
    assert_none(&find_deletions(&source_file(CALLERS[0], "store.delete(key).await")));
}
