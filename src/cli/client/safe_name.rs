//! The name under which a download is stored here, when the user gave none.

use super::human::is_unprintable;

/// What most file systems allow for one name.
const NAME_SIZE_BYTES_MAX: usize = 255;
/// For names of which nothing is left.
const FALLBACK: &str = "download";

/// Reduces a file's name to one that is safe to create in a directory: whoever uploaded the file chose the
/// name, and must not choose the place too.
///
/// Only what follows the last `/` or `\` is kept, so no name leads to another directory. Leading dots go, so
/// no name makes a hidden file, `.` or `..`; so do spaces and dots at the end, which some systems drop.
/// Control characters and those that turn the direction of reading become `_`. Names that are too long lose
/// the end of their stem and keep their extension. Where nothing is left the name is `download`.
pub(super) fn safe_name(name: &str) -> String {
    let base = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let base: String = base.chars().map(|c| if is_unprintable(c) { '_' } else { c }).collect();
    let base = base.trim_start_matches(|c: char| c == '.' || c.is_whitespace());
    let base = base.trim_end_matches(|c: char| c == '.' || c.is_whitespace());
    if base.is_empty() { FALLBACK.to_owned() } else { shortened(base) }
}

fn shortened(name: &str) -> String {
    if name.len() <= NAME_SIZE_BYTES_MAX {
        return name.to_owned();
    }
    // An extension of more than 16 bytes is no extension.
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
    fn names_lose_what_could_do_harm_and_keep_the_rest() {
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
    fn a_name_that_is_too_long_keeps_its_extension() {
        let safe = safe_name(&format!("{}.tar", "報".repeat(200)));
        assert!(safe.len() <= 255 && safe.ends_with("報.tar"), "{safe}");
    }

    proptest! {
        #[test]
        fn no_name_leaves_its_directory_or_hides(name in "([./\\\\ \u{0}-\u{1f}]|\\PC|.){0,300}") {
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
