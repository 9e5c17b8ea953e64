//! The rule for the names of files. It is applied before the list of blocked extensions, so that the list,
//! a reader and the system that opens the file see the same name.
//!
//! A name keeps what was sent, in any language and normalization form, with two exceptions:
//!
//! - *Cleaned*: invisible characters at both ends, and blanks and dots at the end, are removed. Windows removes
//!   such dots and spaces when it opens a file, and nobody can see the characters. The start or end of an isolate
//!   there is removed with its partner, wherever that is.
//! - *Rejected*: control characters, line and paragraph separators, characters that override the direction of
//!   text (they can display `exe.txt` for `txt.exe`), isolates without their start or end, names of NTFS streams
//!   such as `x.exe::$DATA`, and names without any visible character other than dots.
//!
//! Software surrounds names in Arabic or Hebrew with isolates (U+2066 to U+2069) where it composes them with other
//! text. They order only what they contain, and no cleaned name ends within one, so its extension is displayed
//! where it is.

use super::text::{NAME_CHARACTERS_MAX, TextError, check_line};

/// Checks a name, and returns it cleaned.
///
/// # Errors
/// Returns the reason if the name is rejected.
pub fn clean_name(name: &str) -> Result<String, TextError> {
    if name.is_empty() {
        return Err(TextError::Empty);
    }
    if let Some(character) = name.chars().find(|character| is_direction_override(*character)) {
        return Err(TextError::DirectionOverride(character));
    }
    let cleaned = clean_ends(name)?;
    if cleaned.chars().all(is_removed_at_end) {
        return Err(TextError::OnlyDotsOrBlanks);
    }
    if is_stream_name(&cleaned) {
        return Err(TextError::StreamName);
    }
    check_line(&cleaned, NAME_CHARACTERS_MAX)
}

/// Removes what is invisible from both ends, and dots and blanks from the end.
fn clean_ends(name: &str) -> Result<String, TextError> {
    let characters: Vec<char> = name.chars().collect();
    let partners = isolate_partners(&characters)?;
    let mut is_kept = vec![true; characters.len()];
    let mut remove = |at: usize| {
        is_kept[at] = false;
        if let Some(partner) = partners[at] {
            is_kept[partner] = false;
        }
    };
    // The start keeps its dots: they mark hidden files.
    let is_removed_at_start = |character: char| is_invisible(character) || is_isolate(character);
    let start = characters.iter().take_while(|character| is_removed_at_start(**character)).count();
    let end = characters.iter().rev().take_while(|character| is_removed_at_end(**character)).count();
    (0..start).for_each(&mut remove);
    (characters.len() - end..characters.len()).for_each(&mut remove);
    Ok(characters
        .into_iter()
        .zip(is_kept)
        .filter_map(|(character, is_kept)| is_kept.then_some(character))
        .collect())
}

/// Returns for each character the place of the other end, if it is the start or the end of an isolate.
fn isolate_partners(characters: &[char]) -> Result<Vec<Option<usize>>, TextError> {
    let mut partners = vec![None; characters.len()];
    let mut open = Vec::new();
    for (at, character) in characters.iter().enumerate() {
        match character {
            '\u{2066}'..='\u{2068}' => open.push(at),
            '\u{2069}' => {
                let start = open.pop().ok_or(TextError::UnbalancedIsolate(*character))?;
                (partners[start], partners[at]) = (Some(at), Some(start));
            }
            _ => {}
        }
    }
    match open.pop() {
        Some(start) => Err(TextError::UnbalancedIsolate(characters[start])),
        None => Ok(partners),
    }
}

/// Characters that are removed from the end of a name.
fn is_removed_at_end(character: char) -> bool {
    character == '.' || is_blank(character) || is_invisible(character) || is_isolate(character)
}

/// Returns whether a name has the form `<file>:<stream>:$<type>`, in which the stream may be empty.
fn is_stream_name(name: &str) -> bool {
    name.match_indices(":$").any(|(at, _)| name[..at].contains(':'))
}

/// Embeddings and overrides of the Unicode bidirectional algorithm. The marks U+200E and U+200F are common in names
/// of right-to-left languages and do not reorder other characters.
const fn is_direction_override(character: char) -> bool {
    matches!(character, '\u{202a}'..='\u{202e}')
}

/// The starts and the end of isolates of the Unicode bidirectional algorithm.
const fn is_isolate(character: char) -> bool {
    matches!(character, '\u{2066}'..='\u{2069}')
}

/// Characters without width. Inside a name they can be necessary, as in Persian or in emoji.
const fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{2064}' | '\u{feff}'
    )
}

/// White space, and letters that are blank. Control characters are not blanks: they are rejected.
fn is_blank(character: char) -> bool {
    let is_blank_letter = matches!(character, '\u{115f}' | '\u{1160}' | '\u{2800}' | '\u{3164}' | '\u{ffa0}');
    is_blank_letter
        || character.is_whitespace()
            && !character.is_control()
            && !matches!(character, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::text::extension;

    #[test]
    fn names_of_any_language_are_unchanged() {
        for name in [
            "Übung 3 – Lösung.pdf",
            "U\u{308}bung.pdf",
            "履歴書.docx",
            "صورة.png",
            "\u{627}\u{200c}\u{628}.png",
            "👩\u{200d}🚀.png",
            "❤\u{fe0f}",
            "🦀 ../..\\notes.txt",
            ".profile",
            " leading",
            "a: b.txt",
            "price $5.txt",
            "price:$5.txt",
            "1 \u{2068}صورة\u{2069}.png",
            "a \u{2067}\u{2066}b\u{2069} ג\u{2069} c.pdf",
        ] {
            assert_eq!(clean_name(name).as_deref(), Ok(name));
        }
    }

    #[test]
    fn ends_are_cleaned() {
        for (name, cleaned) in [
            ("setup.exe. .", "setup.exe"),
            ("a.txt ", "a.txt"),
            ("a.txt\u{a0}\u{3000}", "a.txt"),
            ("\u{feff}a.txt\u{200b}", "a.txt"),
            ("\u{200b}\u{200e}a.exe.\u{200d} \u{2060}", "a.exe"),
            ("...hidden", "...hidden"),
            ("\u{2068}صورة.png\u{2069}", "صورة.png"),
            ("\u{2068}صورة\u{2069}.png", "صورة.png"),
            ("a\u{2067}gpj\u{2066}.exe\u{2069}.\u{2069} ", "agpj.exe"),
            (".\u{2068}\u{2069}\u{2067}x\u{2069}", ".\u{2068}\u{2069}x"),
        ] {
            assert_eq!(clean_name(name).as_deref(), Ok(cleaned), "{name:?}");
        }
    }

    #[test]
    fn deceptive_names_are_refused() {
        for (name, reason) in [
            ("", TextError::Empty),
            ("photo\u{202e}gpj.exe", TextError::DirectionOverride('\u{202e}')),
            ("a\u{2066}b", TextError::UnbalancedIsolate('\u{2066}')),
            ("a\u{2067}\u{2068}b\u{2069}c", TextError::UnbalancedIsolate('\u{2067}')),
            ("a\u{2069}\u{2066}b", TextError::UnbalancedIsolate('\u{2069}')),
            ("\u{2068}a.txt", TextError::UnbalancedIsolate('\u{2068}')),
            ("\u{2068}.\u{2069}", TextError::OnlyDotsOrBlanks),
            ("a\u{2028}b", TextError::LineSeparator('\u{2028}')),
            ("a\u{2029}", TextError::LineSeparator('\u{2029}')),
            ("a\nb", TextError::ControlCharacter('\n')),
            ("run.exe::$DATA", TextError::StreamName),
            ("run.exe::$data.", TextError::StreamName),
            ("a:b:$Index_Allocation", TextError::StreamName),
            (".", TextError::OnlyDotsOrBlanks),
            ("..", TextError::OnlyDotsOrBlanks),
            (" . \u{a0}.", TextError::OnlyDotsOrBlanks),
            ("\u{200b}", TextError::OnlyDotsOrBlanks),
            ("\u{3164}", TextError::OnlyDotsOrBlanks),
        ] {
            assert_eq!(clean_name(name), Err(reason), "{name:?}");
        }
        let longest = "é".repeat(NAME_CHARACTERS_MAX);
        assert_eq!(clean_name(&format!("{longest} ")), Ok(longest.clone()));
        assert!(matches!(clean_name(&format!("{longest}x")), Err(TextError::TooLong { .. })));
    }

    proptest! {
        #[test]
        fn cleaning_is_idempotent_and_keeps_the_extension(name in "([\u{2066}-\u{2069}. a]|.){0,40}") {
            if let Ok(cleaned) = clean_name(&name) {
                prop_assert_eq!(clean_name(&cleaned), Ok(cleaned.clone()));
                let without_isolates = |name: &str| name.replace(is_isolate, "");
                prop_assert!(without_isolates(&name).contains(&without_isolates(&cleaned)));
                prop_assert!(cleaned.ends_with(|last: char| !is_removed_at_end(last)));
                prop_assert_eq!(extension(&cleaned), extension(&format!("{cleaned}. ")));
            }
        }
    }
}
