//! Safe local names for downloads without an explicit destination.

use super::human::is_unprintable;

/// The longest file name that common file systems allow.
const NAME_SIZE_BYTES_MAX: usize = 255;
/// The name if no safe character is left.
const FALLBACK: &str = "download";

/// Reduces a file's name to one that is safe to create in a directory. The uploader chose the name, and must
/// not be able to choose the directory as well.
///
/// - Everything up to the last `/` or `\` is removed, so that no name leads to another directory.
/// - Leading dots and spaces are removed, so that no name is hidden, `.` or `..`. Trailing ones are removed
///   because some systems drop them.
/// - Control characters and characters that change the text direction become `_`.
/// - A name of more than 255 bytes is shortened before its extension.
/// - If nothing is left, the name is `download`.
pub(super) fn safe_name(name: &str) -> String {
    let base = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let base: String = base.chars().map(|c| if is_unprintable(c) { '_' } else { c }).collect();
    let base = base.trim_start_matches(|c: char| c == '.' || c.is_whitespace());
    let base = base.trim_end_matches(|c: char| c == '.' || c.is_whitespace());
    if base.is_empty() { FALLBACK.to_owned() } else { shorten(base) }
}

fn shorten(name: &str) -> String {
    if name.len() <= NAME_SIZE_BYTES_MAX {
        return name.to_owned();
    }
    // A suffix of more than 16 bytes is not treated as an extension.
    let (stem, extension) = match name.rfind('.') {
        Some(dot) if name.len() - dot <= 16 => name.split_at(dot),
        _ => (name, ""),
    };
    let stem_size = stem.floor_char_boundary(NAME_SIZE_BYTES_MAX - extension.len());
    format!("{}{extension}", &stem[..stem_size])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn safe_name_removes_unsafe_characters() {
        for (name, safe) in [
            ("report.pdf", "report.pdf"),
            ("отчёт 報告.pdf", "отчёт 報告.pdf"),
            ("../../etc/passwd", "passwd"),
            ("C:\\Windows\\system.ini", "system.ini"),
            (".bashrc", "bashrc"),
            ("..", "download"),
            ("a/", "download"),
            ("", "download"),
            ("a\nb\u{202e}fdp.exe", "a_b_fdp.exe"),
            ("trailing. . ", "trailing"),
        ] {
            assert_eq!(safe_name(name), safe, "{name:?}");
        }
    }

    #[test]
    fn long_name_keeps_its_extension() {
        let safe = safe_name(&format!("{}.tar", "報".repeat(200)));
        assert!(safe.len() <= 255 && safe.ends_with("報.tar"), "{safe}");
    }

    proptest! {
        #[test]
        fn safe_name_is_never_a_path_or_hidden(name in "([./\\\\ \u{0}-\u{1f}]|\\PC|.){0,300}") {
            let safe = safe_name(&name);
            prop_assert!(!safe.is_empty() && safe.len() <= 255);
            prop_assert!(!safe.starts_with('.'));
            prop_assert!(!safe.contains(['/', '\\']));
            prop_assert!(!safe.chars().any(char::is_control));
            let base = std::path::Path::new(&safe).file_name();
            prop_assert_eq!(base.and_then(|name| name.to_str()), Some(safe.as_str()));
        }
    }
}
