//! Every command in a document runs in a test, and every reference in a document exists.
//!
//! Commands are fenced blocks of the language `sh`. The tests run all blocks of a document in order, in one
//! shell, against its own `strongroom dev`. A block that cannot run there names the file that runs it,
//! in a comment directly above: `<!-- run by: tests/e2e/worker.rs -->`.

mod commands;
mod references;

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A Markdown file of the repository.
struct Document {
    /// Its path from the root of the repository.
    path: String,
    text: String,
}

/// A fenced block of a document.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    language: String,
    /// Its lines without the indentation of its fence.
    text: String,
    /// The line of its opening fence, counted from 1.
    line: usize,
    /// The file that runs it instead of these tests.
    runner: Option<String>,
}

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Reads all documents: the Markdown files at the root of the repository and below `docs`.
fn documents() -> Vec<Document> {
    let mut paths = Vec::new();
    markdown_files(&repository(), false, &mut paths);
    markdown_files(&repository().join("docs"), true, &mut paths);
    assert!(paths.len() > 10, "the documents were not found");
    let read = |path: PathBuf| Document {
        text: fs::read_to_string(&path).unwrap(),
        path: path.strip_prefix(repository()).unwrap().to_str().unwrap().to_owned(),
    };
    paths.into_iter().map(read).collect()
}

fn markdown_files(directory: &Path, is_recursive: bool, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() && is_recursive {
            markdown_files(&path, true, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

impl Document {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    /// Returns all fenced blocks, in order.
    fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut lines = self.text.lines().enumerate();
        let mut previous = "";
        while let Some((number, line)) = lines.next() {
            if let Some(language) = line.trim_start().strip_prefix("```") {
                let indentation = line.len() - line.trim_start().len();
                let mut text = String::new();
                for (_, line) in lines.by_ref() {
                    if line.trim() == "```" {
                        break;
                    }
                    text.push_str(line.get(indentation..).unwrap_or_default());
                    text.push('\n');
                }
                let (language, runner) = (language.trim().to_owned(), runner(previous));
                blocks.push(Block { language, text, line: number + 1, runner });
            }
            previous = line;
        }
        blocks
    }

    /// Returns the text outside of fenced blocks.
    fn prose(&self) -> String {
        let mut is_inside = false;
        let outside = self.text.lines().filter(|line| {
            let is_fence = line.trim_start().starts_with("```");
            is_inside ^= is_fence;
            !is_inside && !is_fence
        });
        outside.collect::<Vec<_>>().join("\n")
    }
}

fn runner(comment: &str) -> Option<String> {
    let inside = comment.trim().strip_prefix("<!-- run by:")?.strip_suffix("-->")?;
    Some(inside.trim().to_owned())
}

/// Fails with all findings.
fn assert_none(findings: &[String]) {
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

#[test]
fn blocks_are_found_in_lists_and_with_their_runner() {
    let list = "1. Do it:\n\n   <!-- run by: a/b.rs -->\n   ```sh\n   do it\n     now\n   ```\n";
    let text = &format!("{list}\n```text\nx\n```\n");
    let document = Document::new("x.md", text);
    let expected = [("sh", "do it\n  now\n", 4, Some("a/b.rs".to_owned())), ("text", "x\n", 9, None)].map(
        |(language, text, line, runner)| Block { language: language.into(), text: text.into(), line, runner },
    );
    assert_eq!(document.blocks(), expected);
    assert!(!document.prose().contains("do it\n") && document.prose().contains("Do it:"));
}
