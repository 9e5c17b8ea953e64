//! The files of the repository, and which part of a Rust file is code that ships.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// One file.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// Its path from the root of the repository, with `/`.
    pub(crate) path: String,
    /// What it says.
    pub(crate) text: String,
}

pub(crate) fn source(path: &str, text: &str) -> Source {
    Source { path: path.to_owned(), text: text.to_owned() }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every text file of the repository that could be committed.
pub(crate) fn committed() -> Vec<Source> {
    let mut files = Vec::new();
    walk(&root(), &mut files);
    assert!(files.len() > 50, "the repository was not found");
    files
}

/// Every Rust file below a directory.
pub(crate) fn rust(directory: &str) -> Vec<Source> {
    let prefix = format!("{directory}/");
    committed()
        .into_iter()
        .filter(|file| file.path.starts_with(&prefix) && file.path.ends_with(".rs"))
        .collect()
}

/// Every Rust file.
pub(crate) fn all_rust() -> Vec<Source> {
    committed().into_iter().filter(|file| file.path.ends_with(".rs")).collect()
}

fn walk(directory: &Path, files: &mut Vec<Source>) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !matches!(name.as_str(), "target" | ".git") {
                walk(&path, files);
            }
        } else if name != ".git"
            && let Ok(text) = fs::read_to_string(&path)
        {
            let path = path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
            files.push(Source { path, text });
        }
    }
}

/// The lines of a Rust file, each with whether it belongs to a test: everything behind `#[cfg(test)]`.
pub(crate) fn lines(text: &str) -> Vec<(&str, bool)> {
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
        // The item behind the attribute ends with its own `;` or with a brace at its own depth.
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

/// What a Rust file ships: without its tests and its comments.
pub(crate) fn shipped(text: &str) -> String {
    let code = lines(text).into_iter().filter(|(_, is_test)| !is_test).map(|(line, _)| without_comment(line));
    code.collect::<Vec<_>>().join("\n")
}

/// What a Rust file tests with.
pub(crate) fn tested(text: &str) -> String {
    let code = lines(text).into_iter().filter(|(_, is_test)| *is_test).map(|(line, _)| without_comment(line));
    code.collect::<Vec<_>>().join("\n")
}

fn without_comment(line: &str) -> &str {
    let mut from = 0;
    while let Some(found) = line[from..].find("//") {
        let at = from + found;
        // `https://` is no comment.
        if !line[..at].ends_with(':') {
            return &line[..at];
        }
        from = at + 2;
    }
    line
}

/// The files of `src` that exist for tests alone: `#[cfg(test)] mod name;`, with a path or without.
pub(crate) fn test_files(sources: &[Source]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for source in sources {
        let (directory, name) = source.path.rsplit_once('/').unwrap_or(("", &source.path));
        let own = match name.strip_suffix(".rs") {
            Some("mod" | "lib" | "main") | None => directory.to_owned(),
            Some(stem) => format!("{directory}/{stem}"),
        };
        let mut path = None;
        for line in tested(&source.text).lines().map(str::trim) {
            if let Some(named) = line.strip_prefix("#[path = \"").and_then(|rest| rest.strip_suffix("\"]")) {
                path = Some(format!("{directory}/{named}"));
            } else if let Some(module) = line.strip_suffix(';').and_then(|line| line.rsplit_once("mod ")) {
                found.insert(path.take().unwrap_or_else(|| format!("{own}/{}.rs", module.1)));
            }
        }
    }
    found
}

#[test]
fn what_stands_behind_cfg_test_does_not_ship() {
    let text =
        "use a;\n#[cfg(test)]\nmod tests {\n    use b;\n}\nuse c; // see d\n#[cfg(test)]\nmod e;\nuse f;\n";
    assert_eq!(shipped(text), "use a;\nuse c; \nuse f;");
    assert!(tested(text).contains("use b;"));
}

#[test]
fn test_files_are_found_by_module_and_by_path() {
    let sources = [
        source("src/a/mod.rs", "#[cfg(test)]\nmod tests;\n"),
        source(
            "src/b.rs",
            "#[cfg(test)]\n#[path = \"b_tests.rs\"]\nmod tests;\n#[cfg(test)]\npub(crate) mod fake;\n",
        ),
    ];
    let expected = ["src/a/tests.rs", "src/b/fake.rs", "src/b_tests.rs"].map(str::to_owned);
    assert_eq!(test_files(&sources), expected.into());
}
