//! States in migrations have names: `{upload_state.open}` instead of 1. `src/db/migrate/template.rs` replaces
//! them with the numbers that the enums of the domain define. SQL in tests and benchmarks names them in the same
//! way.

use crate::{
    assert_none,
    sources::{Source, repository_files, rust_files_in, source_file},
};

/// Columns and variables whose names end with one of these words contain the number of a state or a kind.
const STATE_WORDS: [&str; 9] =
    ["state", "status", "kind", "visibility", "audience", "outcome", "class", "reason", "action"];

/// Splits SQL without its comments into names with their qualifiers, numbers, and single other characters.
fn split_tokens(sql: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    for line in sql.lines() {
        let code = line.split("--").next().unwrap_or_default();
        let mut word = String::new();
        for c in code.chars().chain([' ']) {
            if c.is_alphanumeric() || matches!(c, '_' | '.') {
                word.push(c);
                continue;
            }
            if !word.is_empty() {
                tokens.push(std::mem::take(&mut word));
            }
            if !c.is_whitespace() {
                tokens.push(c.to_string());
            }
        }
    }
    tokens
}

fn is_number(token: &str) -> bool {
    token.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_state(token: &str) -> bool {
    let name = token.rsplit('.').next().unwrap_or(token);
    STATE_WORDS.iter().any(|word| name == *word || name.ends_with(&format!("_{word}")))
}

/// Returns whether the tokens after a state compare it with a number, or pass both to a function.
fn is_compared_with_number(rest: &[String]) -> bool {
    let mut rest = rest.iter().map(String::as_str).peekable();
    let mut is_comparison = false;
    let mut is_list = false;
    while let Some(token) = rest.peek() {
        match *token {
            "IN" | "BETWEEN" => is_list = true,
            "=" | "<" | ">" | "!" | "," | "IS" | "DISTINCT" | "FROM" | "NOT" | "ANY" | "ARRAY" | "("
            | "[" => {}
            _ => break,
        }
        is_comparison = true;
        rest.next();
    }
    if !is_comparison {
        return false;
    }
    if !is_list {
        return rest.next().is_some_and(is_number);
    }
    // `IN (a, b)`, and the bounds of `BETWEEN a AND b`.
    rest.take_while(|token| !matches!(*token, ")" | ";" | "OR")).any(is_number)
}

/// The query builder's methods that compare a column or set it.
const COMPARISONS: [&str; 8] = ["eq", "ne", "gt", "ge", "lt", "le", "eq_any", "ne_all"];

/// Formats the first tokens of a finding.
fn show(token: &str, rest: &[String]) -> String {
    let rest = rest.iter().take(6).map(String::as_str).collect::<Vec<_>>().join(" ");
    format!("{token} {rest}")
}

/// Finds numbers with which code in Rust compares states, in SQL text or with the query builder.
pub(crate) fn find_compared_numbers(code: &str) -> Vec<String> {
    // A method on a line of its own belongs to the line before.
    let lines: String = code.lines().map(|line| format!("{}\n", line.trim_start())).collect();
    let tokens = split_tokens(&lines.replace("\n.", "."));
    let mut findings = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let rest = &tokens[at + 1..];
        let column = match token.rsplit_once('.') {
            Some((column, method)) if COMPARISONS.contains(&method) => column,
            _ => token,
        };
        if is_state(column) && is_compared_with_number(rest) {
            findings.push(show(token, rest));
        }
    }
    findings
}

/// Finds numbers where the name of a state belongs.
fn find_bare_states(file: &Source) -> Vec<String> {
    let tokens = split_tokens(&file.text);
    let mut findings = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let rest = &tokens[at + 1..];
        let follows =
            |words: &[&str]| rest.iter().map(String::as_str).take(words.len()).eq(words.iter().copied());
        let number_after = |skipped: usize| rest.get(skipped).is_some_and(|token| is_number(token));
        let is_bare = match token.as_str() {
            "WHEN" => number_after(0),
            "smallint" if follows(&["NOT", "NULL", "DEFAULT"]) => number_after(3),
            "smallint" if follows(&["DEFAULT"]) => number_after(1),
            name => is_state(name) && is_compared_with_number(rest),
        };
        if is_bare {
            findings.push(format!("{}: name the state: {}", file.path, show(token, rest)));
        }
    }
    findings
}

/// Returns the text after the opening quote of a literal, split at its closing quote. `hashes` are those of a
/// raw string.
fn split_literal<'a>(text: &'a str, hashes: Option<&str>) -> Option<(&'a str, &'a str)> {
    if let Some(hashes) = hashes {
        return text.split_once(&format!("\"{hashes}"));
    }
    let mut is_escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            '"' if !is_escaped => return Some((&text[..at], &text[at + 1..])),
            c => is_escaped = c == '\\' && !is_escaped,
        }
    }
    None
}

/// Returns the string literals of Rust code, as they are written.
fn string_literals(code: &str) -> Vec<&str> {
    let mut literals = Vec::new();
    let mut rest = code;
    while let Some(at) = rest.find(['"', '\'', '/']) {
        let (before, found, after) = (&rest[..at], &rest[at..], &rest[at + 1..]);
        rest = after;
        if found.starts_with("//") {
            rest = after.split_once('\n').map_or("", |(_, next_lines)| next_lines);
        } else if found.starts_with('\'') {
            // A quote or a slash can be a character. Other apostrophes belong to characters or lifetimes.
            let quoted = ["\\\"'", "\\''", "\"'", "/'"];
            rest = quoted.iter().find_map(|quoted| after.strip_prefix(quoted)).unwrap_or(after);
        } else if found.starts_with('"') {
            let start = before.trim_end_matches('#');
            let hashes = start.ends_with('r').then(|| &before[start.len()..]);
            let Some((literal, next)) = split_literal(after, hashes) else { break };
            literals.push(literal);
            rest = next;
        }
    }
    literals
}

/// Finds numbers with which the SQL in a test or a benchmark compares states.
fn find_bare_states_of_tests(file: &Source) -> Vec<String> {
    let found = string_literals(&file.text).into_iter().flat_map(find_compared_numbers);
    found.map(|shown| format!("{}: name the state: {shown}", file.path)).collect()
}

#[test]
fn tests_and_benchmarks_name_states() {
    let files = [rust_files_in("tests"), rust_files_in("benches")].concat();
    let files: Vec<_> = files.iter().filter(|file| !file.path.starts_with("tests/architecture/")).collect();
    let literals: usize = files.iter().map(|file| string_literals(&file.text).len()).sum();
    assert!(literals > 1_000, "{literals} literals");
    assert_none(&files.into_iter().flat_map(find_bare_states_of_tests).collect::<Vec<_>>());
}

#[test]
fn bare_states_of_tests_are_found() {
    let find = |code: &str| find_bare_states_of_tests(&source_file("tests/x.rs", code)).len();
    for code in [
        r#"let sql = "SELECT FROM uploads WHERE state = 1";"#,
        r#"let sql = "SELECT '\"' FROM uploads\n    WHERE state IN (1, 2)";"#,
        r###"let sql = r#"SELECT "a" FROM uploads WHERE state = 1"#;"###,
        r#"let (quote, escaped) = ('"', '\''); f("UPDATE uploads SET state = 2");"#,
        "// It's \"a\nf(\"SET state = 2\");",
    ] {
        assert_eq!(find(code), 1, "{code}");
    }
    for code in [
        r#"let sql = "SELECT FROM uploads WHERE state = {upload_state.open}";"#,
        "let mut state = 1; // state = 1",
        r#"f("a"); let state = 1; g("b");"#,
        r#"f('"'); let state = 1; g('"');"#,
    ] {
        assert_eq!(find(code), 0, "{code}");
    }
}

#[test]
fn migrations_name_states() {
    let files = repository_files();
    let sql = files.iter().filter(|file| file.path.starts_with("migrations/") && file.path.ends_with(".sql"));
    assert_none(&sql.flat_map(find_bare_states).collect::<Vec<_>>());
}

#[test]
fn bare_states_are_found() {
    let find = |sql: &str| find_bare_states(&source_file("migrations/x/up.sql", sql)).len();
    for sql in [
        "WHERE state = 3",
        "WHERE u.state IN (1, 2)",
        "CHECK (media_kind BETWEEN 1 AND {media_kind.other})",
        "CHECK (state BETWEEN {upload_state.open} AND 3)",
        "WHERE v.content_state <> 4",
        "IF tenant_state IS DISTINCT FROM 1 THEN",
        "SELECT least(n.visibility, 3)",
        "CASE OLD.state WHEN 1 THEN NEW.other END",
        "state smallint NOT NULL DEFAULT 1",
        "UPDATE uploads SET state = 2",
    ] {
        assert_eq!(find(sql), 1, "{sql}");
    }
    for sql in [
        "WHERE state = {upload_state.open} AND version = 3",
        "WHERE state IN ({job_state.ready}, {job_state.running}) LIMIT 1",
        "-- state = 3",
        "warning_percent smallint NOT NULL CHECK (warning_percent BETWEEN 1 AND 100)",
        "ON jobs (state, run_time)",
        "SET media_kind = coalesce(newest.media_kind, f.media_kind), size_bytes = 1",
    ] {
        assert_eq!(find(sql), 0, "{sql}");
    }
}
