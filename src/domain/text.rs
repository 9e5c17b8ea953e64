//! Texts that callers give us: names, titles, tags, ids of their world. Kept exactly; only length and control characters
//! are checked, because names come in any language.

use std::fmt;

/// The longest display name, in characters (POLICY: "name 255 characters").
pub const NAME_CHARACTERS_MAX: usize = 255;
/// The longest title, in characters.
pub const TITLE_CHARACTERS_MAX: usize = 255;
/// The longest description, in bytes.
pub const DESCRIPTION_BYTES_MAX: usize = 4 * 1024;
/// The longest description of a change, in characters.
pub const CHANGE_DESCRIPTION_CHARACTERS_MAX: usize = 500;
/// The most tags on a file.
pub const TAGS_MAX: usize = 50;
/// The longest tag, in characters.
pub const TAG_CHARACTERS_MAX: usize = 64;
/// The largest metadata, in bytes of JSON.
pub const METADATA_BYTES_MAX: usize = 16 * 1024;
/// The longest id from outside (subject, organisation, group, entity), in characters.
pub const EXTERNAL_ID_CHARACTERS_MAX: usize = 255;

/// Why a text is refused.
#[derive(Debug, PartialEq, Eq)]
pub enum TextError {
    /// It must say something.
    Empty,
    /// It is too long.
    TooLong {
        /// How long it is.
        length: usize,
        /// How long it may be.
        max: usize,
        /// What is counted.
        unit: &'static str,
    },
    /// It holds a character that no display shows.
    ControlCharacter(char),
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("must not be empty"),
            Self::TooLong { length, max, unit } => write!(f, "must have at most {max} {unit}, has {length}"),
            Self::ControlCharacter(character) => {
                write!(f, "must not contain control characters, has U+{:04X}", u32::from(*character))
            }
        }
    }
}

/// Checks a line of text: not empty, at most `max` characters, no control characters.
pub fn line(text: &str, max: usize) -> Result<String, TextError> {
    if text.is_empty() {
        return Err(TextError::Empty);
    }
    optional_line(text, max)
}

/// Checks a line of text that may be empty.
pub fn optional_line(text: &str, max: usize) -> Result<String, TextError> {
    let length = text.chars().count();
    if length > max {
        return Err(TextError::TooLong { length, max, unit: "characters" });
    }
    match text.chars().find(|character| character.is_control()) {
        Some(character) => Err(TextError::ControlCharacter(character)),
        None => Ok(text.to_owned()),
    }
}

/// Checks a text of several lines: line breaks and tabs are welcome, other control characters are not.
pub fn block(text: &str, max_bytes: usize) -> Result<String, TextError> {
    if text.len() > max_bytes {
        return Err(TextError::TooLong { length: text.len(), max: max_bytes, unit: "bytes" });
    }
    let unwelcome = |character: &char| character.is_control() && !matches!(character, '\n' | '\r' | '\t');
    match text.chars().find(unwelcome) {
        Some(character) => Err(TextError::ControlCharacter(character)),
        None => Ok(text.to_owned()),
    }
}

/// The extension of a name in lower case, without the dot; `None` where there is none. Trailing dots and spaces are
/// passed over, because some systems drop them when the file is opened.
pub fn extension(name: &str) -> Option<String> {
    let trimmed = name.trim_end_matches(['.', ' ']);
    let (stem, extension) = trimmed.rsplit_once('.')?;
    (!stem.is_empty() && !extension.is_empty()).then(|| extension.to_lowercase())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_of_any_language_are_kept_exactly() {
        for name in ["Übung 3 – Lösung.pdf", "履歴書.docx", "صورة.png", "🦀 ../..\\notes.txt"] {
            assert_eq!(line(name, NAME_CHARACTERS_MAX).unwrap(), name);
        }
    }

    #[test]
    fn control_characters_are_refused() {
        for name in ["a\0b", "a\r\nb", "\u{1b}[31m", "a\u{85}b"] {
            assert!(matches!(line(name, 255), Err(TextError::ControlCharacter(_))), "{name:?}");
        }
    }

    #[test]
    fn length_is_counted_in_characters_not_bytes() {
        assert!(line(&"é".repeat(255), 255).is_ok());
        assert_eq!(
            line(&"é".repeat(256), 255),
            Err(TextError::TooLong { length: 256, max: 255, unit: "characters" })
        );
    }

    #[test]
    fn an_extension_cannot_hide_behind_case_or_trailing_dots() {
        assert_eq!(extension("Setup.EXE").as_deref(), Some("exe"));
        assert_eq!(extension("setup.exe. .").as_deref(), Some("exe"));
        assert_eq!(extension("archive.tar.gz").as_deref(), Some("gz"));
        assert_eq!(extension("README"), None);
        assert_eq!(extension(".profile"), None);
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_unchanged(text in ".{0,300}") {
            if let Ok(kept) = line(&text, NAME_CHARACTERS_MAX) {
                prop_assert_eq!(kept, text);
            }
        }
    }
}
