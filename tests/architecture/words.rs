//! The style of the repository: no phrase from the right-hand column of the glossary (`docs/writing.md`),
//! short function names, and documentation that begins with a sentence.
//!
//! To ban a phrase, add it to [`BANNED`].

use std::collections::BTreeMap;

use crate::{
    assert_none,
    sources::{Source, repository_files, rust_files, source_file},
};

const NAME_CHARACTERS_MAX: usize = 60;
const SUMMARY_WORDS_MIN: usize = 3;

/// Each preferred word with the phrases that it replaces. Phrases are matched word by word, ignoring case, in
/// prose and in names: `let go` also finds `let_go` and `LetGo`.
const BANNED: &[(&str, &[&str])] = &[
    ("create", &["born", "begin to stand", "begins to stand"]),
    ("resume", &["go on with", "goes on with", "going on with", "gone on with", "went on with"]),
    ("existing", &["of before"]),
    ("trash", &["dispose", "disposes", "disposed", "put away", "puts away"]),
    ("purge", &["take apart", "takes apart", "taken apart", "took apart"]),
    ("delete", &["reap", "reaps", "reaped", "reaping", "reaper"]),
    ("release, schedule deletion", &["let go", "lets go", "letting go", "let it go", "let them go"]),
    ("abandon", &["give up", "gives up", "gave up", "given up", "giving up", "hopeless"]),
    ("expire", &["kept by time", "keep by time", "keeps by time", "run out", "runs out", "ran out"]),
    ("report, return", &["tell", "tells", "told", "telling"]),
    ("stored", &["stands", "stood"]),
    (
        "after",
        &[
            "behind it",
            "behind them",
            "behind that",
            "behind this",
            "behind the cursor",
            "behind a cursor",
            "behind the position",
            "behind its position",
        ],
    ),
    ("unreachable, unavailable", &["is away", "are away", "was away", "were away", "be away", "been away"]),
    ("the caller, the owner, …", &["whoever", "whomever", "whosever"]),
    ("a count", &["so many"]),
    (
        "response",
        &[
            "the answer",
            "an answer",
            "its answer",
            "answers the same",
            "answered the same",
            "is answered",
            "are answered",
            "was answered",
            "be answered",
            "were answered",
            "early answer",
        ],
    ),
    (
        "a noun",
        &[
            "what is stored",
            "what was stored",
            "what is kept",
            "what was kept",
            "what is left",
            "what was left",
            "what is needed",
            "what was asked",
            "what is asked",
            "what stands",
            "what comes",
            "what came",
            "what was written",
            "what is written",
            "what became of",
            "what becomes of",
            "what is to be",
        ],
    ),
    ("again", &["once more", "anew"]),
    // A copy of a blob at the replica provider is not a process.
    ("a server, a process", &["every replica", "this replica"]),
    ("lost hours", &["restore window"]),
    ("always", &["for ever"]),
];

/// Files that are not ours to edit, or that list the banned phrases.
const EXEMPT: [&str; 5] =
    ["LICENSE", "Cargo.lock", "docs/writing.md", "tests/architecture/words.rs", "proto/google/"];

/// A word of a text and the line it is on. Punctuation ends a phrase, so it is stored as a separate word.
struct Word {
    text: String,
    line: usize,
}

fn words(text: &str) -> Vec<Word> {
    let mut words = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let mut previous_is_lower = false;
        let mut is_inside = false;
        let content = without_comment_marker(line);
        for character in content.chars() {
            let starts_hump = character.is_uppercase() && previous_is_lower;
            previous_is_lower = character.is_lowercase();
            if !character.is_alphanumeric() && character != '\'' {
                is_inside = false;
                if !character.is_whitespace() && !matches!(character, '_' | '`') {
                    words.push(Word { text: character.to_string(), line: index + 1 });
                }
                continue;
            }
            if !is_inside || starts_hump {
                words.push(Word { text: String::new(), line: index + 1 });
            }
            is_inside = true;
            if let Some(word) = words.last_mut() {
                word.text.extend(character.to_lowercase());
            }
        }
    }
    words
}

/// Removes the marker of a comment line, so that it does not end a phrase that continues across lines.
fn without_comment_marker(line: &str) -> &str {
    let line = line.trim_start();
    for marker in ["//!", "///", "//", "--", "#"] {
        if let Some(rest) = line.strip_prefix(marker) {
            return rest;
        }
    }
    line
}

fn find_banned_phrases(source: &Source) -> Vec<String> {
    let by_first_word = phrases_by_first_word();
    let words = words(&source.text);
    let mut findings = Vec::new();
    for (start, word) in words.iter().enumerate() {
        for (phrase, instead) in by_first_word.get(word.text.as_str()).into_iter().flatten() {
            let is_phrase = phrase
                .split(' ')
                .enumerate()
                .all(|(offset, text)| words.get(start + offset).is_some_and(|word| word.text == text));
            if is_phrase {
                findings.push(format!("{}:{}: `{phrase}`; write: {instead}", source.path, word.line));
            }
        }
    }
    findings
}

/// Returns each phrase with its preferred word, grouped by the first word of the phrase.
fn phrases_by_first_word() -> BTreeMap<&'static str, Vec<(&'static str, &'static str)>> {
    let mut by_first_word = BTreeMap::<_, Vec<_>>::new();
    for (instead, phrases) in BANNED {
        for phrase in *phrases {
            let first = phrase.split(' ').next().unwrap_or_default();
            by_first_word.entry(first).or_default().push((*phrase, *instead));
        }
    }
    by_first_word
}

fn find_long_names(source: &Source) -> Vec<String> {
    let names =
        source.text.lines().filter_map(|line| line.trim_start().split_once("fn ")).filter(|(before, _)| {
            before
                .split(' ')
                .all(|word| matches!(word, "" | "async" | "const" | "unsafe") || word.starts_with("pub"))
        });
    names
        .map(|(_, rest)| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>())
        .filter(|name| name.chars().count() > NAME_CHARACTERS_MAX)
        .map(|name| {
            let count = name.chars().count();
            format!("{}: `{name}` has {count} characters; the limit is {NAME_CHARACTERS_MAX}", source.path)
        })
        .collect()
}

/// Finds documentation comments whose first paragraph is not a sentence.
fn find_poor_summaries(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    let mut lines = source.text.lines().enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        let Some((marker, first)) = doc_line(line) else { continue };
        let mut summary = first.to_owned();
        let mut is_summary = true;
        while let Some((_, next)) = lines.peek() {
            let Some((next_marker, rest)) = doc_line(next) else { break };
            if next_marker != marker {
                break;
            }
            is_summary &= !rest.is_empty();
            if is_summary {
                summary.push(' ');
                summary.push_str(rest);
            }
            lines.next();
        }
        if let Some(problem) = find_summary_problem(&summary) {
            findings.push(format!("{}:{}: {problem}: {summary}", source.path, number + 1));
        }
    }
    findings
}

fn doc_line(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    ["//!", "///"].into_iter().find_map(|marker| Some((marker, line.strip_prefix(marker)?.trim())))
}

fn find_summary_problem(summary: &str) -> Option<&'static str> {
    let is_heading = summary.starts_with('#') || summary.starts_with("```");
    let starts_well = summary.chars().next().is_some_and(|c| !c.is_lowercase());
    let ends_well = summary.ends_with(['.', ':', '?', '|']) || summary.ends_with(".)");
    if is_heading {
        None
    } else if !starts_well {
        Some("a summary begins with a capital letter")
    } else if !ends_well {
        Some("a summary ends with a full stop")
    } else if summary.split_whitespace().count() < SUMMARY_WORDS_MIN {
        Some("a summary of one or two words repeats the name; delete it or explain")
    } else {
        None
    }
}

fn is_ours(path: &str) -> bool {
    !EXEMPT.iter().any(|exempt| path.starts_with(exempt))
}

#[test]
fn no_file_uses_a_banned_phrase() {
    let files = repository_files();
    let ours = files.iter().filter(|file| is_ours(&file.path));
    assert_none(&ours.flat_map(find_banned_phrases).collect::<Vec<_>>());
}

#[test]
fn function_names_have_at_most_60_characters() {
    assert_none(&rust_files().iter().flat_map(find_long_names).collect::<Vec<_>>());
}

#[test]
fn documentation_begins_with_a_sentence() {
    assert_none(&rust_files().iter().flat_map(find_poor_summaries).collect::<Vec<_>>());
}

#[test]
fn banned_phrases_are_found_in_prose_and_names() {
    let found = |text: &str| find_banned_phrases(&source_file("src/x.rs", text)).len();
    assert_eq!(found("// Blobs are let\n// go later.\n"), 1);
    assert_eq!(found("fn let_go() {}\nstruct LetGo;\n"), 2);
    assert_eq!(found("// Whoever uploads."), 1);
    assert_eq!(found("// Let, go."), 0);
    assert_eq!(found("// outlets go"), 0);
}

#[test]
fn long_names_are_found() {
    let name = "a".repeat(NAME_CHARACTERS_MAX + 1);
    assert_eq!(
        find_long_names(&source_file("src/x.rs", &format!("    pub(crate) async fn {name}() {{"))).len(),
        1
    );
    assert_none(&find_long_names(&source_file("src/x.rs", &format!("fn {}() {{}}", &name[1..]))));
}

#[test]
fn poor_summaries_are_found() {
    let found = |text: &str| find_poor_summaries(&source_file("src/x.rs", text)).len();
    assert_eq!(found("/// moves a file to the trash."), 1);
    assert_eq!(found("/// Moves a file\n/// to the trash"), 1);
    assert_eq!(found("/// The id."), 1);
    assert_eq!(found("/// Moves a file to the trash.\n///\n/// more, without an end"), 0);
}
