//! Checks that the links, paths, configuration keys, error reasons and log messages of the documents exist.

use std::{collections::BTreeSet, fs, path::Path};

use super::{Document, assert_none, documents, repository};

/// Prefixes of the names in backticks that are repository paths.
const DIRECTORIES: [&str; 9] =
    ["src/", "tests/", "docs/", "scripts/", "proto/", "migrations/", "benches/", "deploy/", ".ci/"];

/// Prefixes of environment variables, which look like error reasons.
const VARIABLE_PREFIXES: [&str; 2] = ["STRONGROOM_", "AWS_"];

/// The names that documents may refer to.
struct Known {
    config: toml::Table,
    /// The words of the contract that begin with a capital letter, without the prefix of error reasons.
    constants: BTreeSet<String>,
    /// The source, with the continuation lines of string literals joined.
    source: String,
}

impl Known {
    fn read() -> Self {
        let config = fs::read_to_string(repository().join("src/config/default.toml")).unwrap();
        let mut constants = BTreeSet::new();
        read_constants(&repository().join("proto"), &mut constants);
        assert!(constants.contains("OVERLOADED"), "the error reasons were not found");
        let mut source = String::new();
        read_source(&repository().join("src"), &mut source);
        Self { config: config.parse().unwrap(), constants, source }
    }

    /// Returns the problem of a name in backticks that refers to nothing.
    fn find_problem(&self, name: &str) -> Option<&'static str> {
        let is_pattern = name.contains(['<', '*', '{', '…', '$']);
        if DIRECTORIES.iter().any(|directory| name.starts_with(directory)) {
            let is_missing = !is_pattern && !repository().join(name).exists();
            return is_missing.then_some("is not a path in the repository");
        }
        let section = name.split('.').next().unwrap_or_default();
        let is_key = name.contains('.') && self.config.contains_key(section) && !is_file(name);
        if is_key && !is_pattern && !self.has_key(name) {
            return Some("is not a configuration key");
        }
        let is_constant = name.contains('_')
            && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
            && !VARIABLE_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        if is_constant && !self.constants.contains(name) {
            return Some("is neither an error reason nor another constant of the contract");
        }
        None
    }

    fn has_key(&self, key: &str) -> bool {
        let mut names = key.split('.');
        let first = names.next().and_then(|name| self.config.get(name));
        names.try_fold(first, |value, name| value.map(|value| value.get(name))).flatten().is_some()
    }
}

fn is_file(name: &str) -> bool {
    [".rs", ".toml", ".md", ".json", ".proto", ".sql"].iter().any(|ending| name.ends_with(ending))
}

fn read_constants(directory: &Path, constants: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_constants(&path, constants);
        } else if let Ok(text) = fs::read_to_string(&path) {
            let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let words = words.filter(|word| word.chars().next().is_some_and(|c| c.is_ascii_uppercase()));
            constants.extend(words.map(|word| word.trim_start_matches("ERROR_REASON_").to_owned()));
        }
    }
}

fn read_source(directory: &Path, source: &mut String) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_source(&path, source);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            for line in fs::read_to_string(&path).unwrap().lines() {
                let line = line.trim_start();
                source.push_str(line.strip_suffix('\\').unwrap_or(line));
                source.push_str(if line.ends_with('\\') { "" } else { "\n" });
            }
        }
    }
}

/// Returns the messages in backticks of items that quote a log line. Field names are single words.
fn log_messages(prose: &str) -> Vec<String> {
    let items = prose.split("\n- ").filter(|item| item.contains("Log line"));
    let items = items.map(|item| item.split("\n\n").next().unwrap_or_default().replace("\n  ", " "));
    let code =
        items.flat_map(|item| item.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>());
    code.filter(|code| code.contains(' ') && !code.starts_with("strongroom ")).collect()
}

/// Returns the first word of each inline code: `scripts/load` of `scripts/load --quick`.
fn names(prose: &str) -> Vec<&str> {
    let code = prose.split('`').skip(1).step_by(2);
    code.filter_map(|code| code.split_whitespace().next()).collect()
}

/// Returns the targets of links to files, without their anchors.
fn links(prose: &str) -> Vec<&str> {
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let targets = targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:"));
    targets.filter_map(|target| target.split('#').next()).filter(|target| !target.is_empty()).collect()
}

fn find_problems(document: &Document, known: &Known) -> Vec<String> {
    let prose = document.prose();
    let directory = repository().join(&document.path).parent().unwrap().to_owned();
    let mut problems = Vec::new();
    for link in links(&prose).into_iter().filter(|link| !directory.join(link).exists()) {
        problems.push(format!("{}: the target of the link `{link}` does not exist", document.path));
    }
    for message in log_messages(&prose).into_iter().filter(|message| !known.source.contains(message)) {
        problems.push(format!("{}: the program does not log `{message}`", document.path));
    }
    for name in names(&prose) {
        if let Some(problem) = known.find_problem(name) {
            problems.push(format!("{}: `{name}` {problem}", document.path));
        }
    }
    problems
}

#[test]
fn references_of_documents_exist() {
    let known = Known::read();
    assert_none(&documents().iter().flat_map(|document| find_problems(document, &known)).collect::<Vec<_>>());
}

#[test]
fn missing_references_are_found() {
    let known = Known::read();
    let count_problems = |text: &str| find_problems(&Document::new("docs/x.md", text), &known).len();
    for good in [
        "`src/lib.rs`, `scripts/load --quick`, `migrations/<name>/`",
        "[all](../README.md#top), [elsewhere](https://example.org), <https://example.org>",
        "`worker.tick_seconds`, `database.rs`, `auth.roles`, `storage.providers.<name>.root`",
        "`OVERLOADED`, `CURSOR_TOO_OLD`, `STRONGROOM_TOKEN`, `POST`",
        "```sh\n`src/nowhere.rs`\n```",
        "Seen:\n\n- Log line: `database probe failed`, with the field\n  `result`.\n\nNo `log message`.",
    ] {
        assert_eq!(count_problems(good), 0, "{good}");
    }
    for bad in [
        "`src/nowhere.rs`",
        "`scripts/nowhere --quick`",
        "[nowhere](nowhere.md)",
        "`worker.tock_seconds`",
        "`storage.providers.nowhere`",
        "`CURSOR_TOO_YOUNG`",
        "Seen:\n\n- Log line, level WARN: `database probe\n  succeeded`.\n",
    ] {
        assert_eq!(count_problems(bad), 1, "{bad}");
    }
}
