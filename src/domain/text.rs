//! Validation of text from callers: titles, tags, external ids, and names of files, for which
//! [`file_name`](super::file_name) has further rules.
//!
//! Text is stored unchanged, except tags: text that looks the same can consist of different characters (`é` is
//! one or two), so tags are stored in the normalization form NFC, and filters compare in it. Only the length,
//! control characters and line separators are checked, because text can be in any language.

use std::fmt;

use unicode_normalization::UnicodeNormalization as _;

/// The maximum length of a display name, in characters.
pub const NAME_CHARACTERS_MAX: usize = 255;
/// The maximum length of a title, in characters.
pub const TITLE_CHARACTERS_MAX: usize = 255;
/// The maximum length of a description, in bytes.
pub const DESCRIPTION_BYTES_MAX: usize = 4 * 1024;
/// The maximum length of a change description, in characters.
pub const CHANGE_DESCRIPTION_CHARACTERS_MAX: usize = 500;
/// The maximum number of tags of a file.
pub const TAGS_MAX: usize = 50;
/// The maximum length of a tag, in characters.
pub const TAG_CHARACTERS_MAX: usize = 64;
/// The maximum size of metadata, in bytes of an encoded `google.protobuf.Struct`.
pub const METADATA_BYTES_MAX: usize = 16 * 1024;
/// The maximum number of elements of metadata: the fields of all objects and the values of all lists in it.
pub const METADATA_ELEMENTS_MAX: usize = 1_000;
/// The maximum depth of metadata. The outermost object has depth 1.
pub const METADATA_DEPTH_MAX: usize = 16;
/// The maximum length of an external id (subject, organization, group, entity), in characters.
pub const EXTERNAL_ID_CHARACTERS_MAX: usize = 255;

/// The reason that text is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextError {
    /// The text is empty.
    Empty,
    /// The text is too long.
    TooLong {
        /// The length of the text.
        length: usize,
        /// The maximum length.
        max: usize,
        /// The unit of both.
        unit: &'static str,
    },
    /// The text contains a control character.
    ControlCharacter(char),
    /// A line contains a line or paragraph separator.
    LineSeparator(char),
    /// A name contains a character that overrides the direction of text.
    DirectionOverride(char),
    /// A name contains the start or the end of an isolate without its partner.
    UnbalancedIsolate(char),
    /// A name contains no visible character other than dots.
    OnlyDotsOrBlanks,
    /// A name is that of an NTFS stream.
    StreamName,
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("must not be empty"),
            Self::TooLong { length, max, unit } => write!(f, "must have at most {max} {unit}, has {length}"),
            Self::ControlCharacter(character) => {
                write!(f, "must not contain control characters, has U+{:04X}", u32::from(*character))
            }
            Self::LineSeparator(character) => {
                write!(f, "must be one line, has U+{:04X}", u32::from(*character))
            }
            Self::DirectionOverride(character) => write!(
                f,
                "must not contain characters that override the direction of text, has U+{:04X}",
                u32::from(*character)
            ),
            Self::UnbalancedIsolate(character) => write!(
                f,
                "must end each isolate (U+2066 to U+2068) with U+2069, has U+{:04X} without its partner",
                u32::from(*character)
            ),
            Self::OnlyDotsOrBlanks => f.write_str("must have a visible character that is not a dot"),
            Self::StreamName => f.write_str("must not be the name of an NTFS stream, such as `a.exe::$DATA`"),
        }
    }
}

/// Returns the text in the normalization form NFC, in which equal text has equal characters.
pub fn to_nfc(text: &str) -> String {
    text.nfc().collect()
}

/// Checks a line of text: it must not be empty, have at most `max` characters, and contain no control
/// characters and line separators.
///
/// # Errors
/// Returns the reason if the text is rejected.
pub fn check_line(text: &str, max: usize) -> Result<String, TextError> {
    if text.is_empty() {
        return Err(TextError::Empty);
    }
    check_optional_line(text, max)
}

/// Checks a line of text that may be empty.
///
/// # Errors
/// Returns the reason if the text is rejected.
pub fn check_optional_line(text: &str, max: usize) -> Result<String, TextError> {
    let length = text.chars().count();
    if length > max {
        return Err(TextError::TooLong { length, max, unit: "characters" });
    }
    let is_separator = |character: char| matches!(character, '\u{2028}' | '\u{2029}');
    match text.chars().find(|character| character.is_control() || is_separator(*character)) {
        Some(character) if is_separator(character) => Err(TextError::LineSeparator(character)),
        Some(character) => Err(TextError::ControlCharacter(character)),
        None => Ok(text.to_owned()),
    }
}

/// Returns whether a character is a control character, a line separator, invisible, or changes the direction of other
/// text. Clients choose such text, and people read it among other text, for example in a log.
pub fn is_deceptive(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}'
        )
}

/// Checks text of several lines. Line breaks and tabs are allowed, other control characters are not.
///
/// # Errors
/// Returns the reason if the text is rejected.
pub fn check_block(text: &str, max_bytes: usize) -> Result<String, TextError> {
    if text.len() > max_bytes {
        return Err(TextError::TooLong { length: text.len(), max: max_bytes, unit: "bytes" });
    }
    let is_forbidden = |character: &char| character.is_control() && !matches!(character, '\n' | '\r' | '\t');
    match text.chars().find(is_forbidden) {
        Some(character) => Err(TextError::ControlCharacter(character)),
        None => Ok(text.to_owned()),
    }
}

/// Returns the extension of a name in lower case and without the dot, if there is one.
///
/// Ignores trailing dots and spaces, because some systems remove them when the file is opened.
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
    fn names_of_any_language_are_unchanged() {
        for name in ["Übung 3 – Lösung.pdf", "履歴書.docx", "صورة.png", "🦀 ../..\\notes.txt"] {
            assert_eq!(check_line(name, NAME_CHARACTERS_MAX).unwrap(), name);
        }
    }

    #[test]
    fn rejects_control_characters() {
        for name in ["a\0b", "a\r\nb", "\u{1b}[31m", "a\u{85}b"] {
            assert!(matches!(check_line(name, 255), Err(TextError::ControlCharacter(_))), "{name:?}");
        }
    }

    #[test]
    fn line_separators_are_not_part_of_a_line() {
        for separator in ['\u{2028}', '\u{2029}'] {
            let text = format!("a{separator}b");
            assert_eq!(check_line(&text, 255), Err(TextError::LineSeparator(separator)));
            assert_eq!(check_block(&text, 255).as_deref(), Ok(text.as_str()));
        }
    }

    #[test]
    fn length_is_counted_in_characters_not_bytes() {
        assert!(check_line(&"é".repeat(255), 255).is_ok());
        assert_eq!(
            check_line(&"é".repeat(256), 255),
            Err(TextError::TooLong { length: 256, max: 255, unit: "characters" })
        );
    }

    #[test]
    fn extension_ignores_case_and_trailing_dots() {
        assert_eq!(extension("Setup.EXE").as_deref(), Some("exe"));
        assert_eq!(extension("setup.exe. .").as_deref(), Some("exe"));
        assert_eq!(extension("archive.tar.gz").as_deref(), Some("gz"));
        assert_eq!(extension("README"), None);
        assert_eq!(extension(".profile"), None);
    }

    proptest! {
        #[test]
        fn accepted_text_is_unchanged(text in ".{0,300}") {
            if let Ok(kept) = check_line(&text, NAME_CHARACTERS_MAX) {
                prop_assert_eq!(kept, text);
            }
        }
    }
}
