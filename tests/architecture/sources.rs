//! The files of the repository, and the separation of production code from tests.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// A text file of the repository.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// The path relative to the root of the repository, with `/` as separator.
    pub(crate) path: String,
    pub(crate) text: String,
}

pub(crate) fn source_file(path: &str, text: &str) -> Source {
    Source { path: path.to_owned(), text: text.to_owned() }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Returns every text file of the repository, except for build outputs.
pub(crate) fn repository_files() -> Vec<Source> {
    let mut files = Vec::new();
    collect_files(&root(), &mut files);
    assert!(files.len() > 50, "the files of the repository were not found");
    files
}

/// Returns every Rust file below a directory.
pub(crate) fn rust_files_in(directory: &str) -> Vec<Source> {
    let prefix = format!("{directory}/");
    repository_files()
        .into_iter()
        .filter(|file| file.path.starts_with(&prefix) && file.path.ends_with(".rs"))
        .collect()
}

/// Returns every Rust file of the repository.
pub(crate) fn rust_files() -> Vec<Source> {
    repository_files().into_iter().filter(|file| file.path.ends_with(".rs")).collect()
}

fn collect_files(directory: &Path, files: &mut Vec<Source>) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !matches!(name.as_str(), "target" | ".git") {
                collect_files(&path, files);
            }
        } else if name != ".git"
            && let Ok(text) = fs::read_to_string(&path)
        {
            let path = path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
            files.push(Source { path, text });
        }
    }
}

/// Returns the lines of a Rust file, each with `true` if it belongs to a `#[cfg(test)]` item.
pub(crate) fn mark_test_lines(text: &str) -> Vec<(&str, bool)> {
    let mut marked = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            marked.push((line, false));
            continue;
        }
        marked.push((line, true));
        let indent = &line[..line.len() - line.trim_start().len()];
        let end = format!("{indent}}}");
        // The item after the attribute ends with `;` or with a closing brace of the same indentation.
        let mut is_block = false;
        for line in lines.by_ref() {
            marked.push((line, true));
            let is_attribute = line.trim_start().starts_with("#[");
            is_block |= line.ends_with('{');
            if line == end || (!is_block && !is_attribute && (line.ends_with(';') || line.ends_with('}'))) {
                break;
            }
        }
    }
    marked
}

/// Returns the code of a Rust file without tests and comments.
pub(crate) fn production_code(text: &str) -> String {
    let code = mark_test_lines(text)
        .into_iter()
        .filter(|(_, is_test)| !is_test)
        .map(|(line, _)| without_comment(line));
    code.collect::<Vec<_>>().join("\n")
}

/// Returns the test code of a Rust file without comments.
pub(crate) fn test_code(text: &str) -> String {
    let code = mark_test_lines(text)
        .into_iter()
        .filter(|(_, is_test)| *is_test)
        .map(|(line, _)| without_comment(line));
    code.collect::<Vec<_>>().join("\n")
}

fn without_comment(line: &str) -> &str {
    let mut from = 0;
    while let Some(found) = line[from..].find("//") {
        let at = from + found;
        // The `//` of a URL does not start a comment.
        if !line[..at].ends_with(':') {
            return &line[..at];
        }
        from = at + 2;
    }
    line
}

/// Returns the paths of the files that are compiled only for tests: modules with `#[cfg(test)]`, with or
/// without a `path` attribute.
pub(crate) fn test_file_paths(sources: &[Source]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for source in sources {
        let (directory, name) = source.path.rsplit_once('/').unwrap_or(("", &source.path));
        let module_directory = match name.strip_suffix(".rs") {
            Some("mod" | "lib" | "main") | None => directory.to_owned(),
            Some(stem) => format!("{directory}/{stem}"),
        };
        let mut path = None;
        for line in test_code(&source.text).lines().map(str::trim) {
            if let Some(named_path) =
                line.strip_prefix("#[path = \"").and_then(|rest| rest.strip_suffix("\"]"))
            {
                path = Some(format!("{directory}/{named_path}"));
            } else if let Some(module) = line.strip_suffix(';').and_then(|line| line.rsplit_once("mod ")) {
                found.insert(path.take().unwrap_or_else(|| format!("{module_directory}/{}.rs", module.1)));
            }
        }
    }
    found
}

#[test]
fn production_code_excludes_cfg_test_items() {
    let text =
        "use a;\n#[cfg(test)]\nmod tests {\n    use b;\n}\nuse c; // see d\n#[cfg(test)]\nmod e;\nuse f;\n";
    assert_eq!(production_code(text), "use a;\nuse c; \nuse f;");
    assert!(test_code(text).contains("use b;"));
}

#[test]
fn test_file_paths_are_found_by_name_and_path_attribute() {
    let sources = [
        source_file("src/a/mod.rs", "#[cfg(test)]\nmod tests;\n"),
        source_file(
            "src/b.rs",
            "#[cfg(test)]\n#[path = \"b_tests.rs\"]\nmod tests;\n#[cfg(test)]\npub(crate) mod fake;\n",
        ),
    ];
    let expected = ["src/a/tests.rs", "src/b/fake.rs", "src/b_tests.rs"].map(str::to_owned);
    assert_eq!(test_file_paths(&sources), expected.into());
}
