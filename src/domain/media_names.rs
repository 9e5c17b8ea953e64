//! Names of media types: aliases of registered names, and the types of file extensions.

use super::text::extension;

/// The content of one type: its registered name, or the most common one, and its aliases.
const ALIASES: [(&str, &[&str]); 33] = [
    ("application/gzip", &["application/x-gzip"]),
    ("application/json", &["text/json"]),
    ("application/pdf", &["application/x-pdf"]),
    ("application/rtf", &["text/rtf"]),
    ("application/vnd.rar", &["application/x-rar-compressed", "application/x-rar"]),
    (
        "application/x-ndjson",
        &["application/ndjson", "application/jsonl", "application/jsonlines", "application/x-jsonlines"],
    ),
    ("application/yaml", &["application/x-yaml", "text/yaml", "text/x-yaml"]),
    ("application/zip", &["application/x-zip-compressed", "application/x-zip"]),
    ("audio/flac", &["audio/x-flac"]),
    ("audio/mp4", &["audio/m4a", "audio/x-m4a"]),
    ("audio/mpeg", &["audio/mp3", "audio/x-mp3", "audio/x-mpeg"]),
    ("audio/ogg", &["audio/opus", "audio/x-ogg"]),
    ("audio/x-aiff", &["audio/aiff"]),
    ("audio/x-wav", &["audio/wav", "audio/wave", "audio/vnd.wave", "audio/x-pn-wav"]),
    ("image/bmp", &["image/x-bmp", "image/x-ms-bmp"]),
    ("image/heic", &["image/heif", "image/heic-sequence", "image/heif-sequence"]),
    ("image/jpeg", &["image/jpg", "image/pjpeg"]),
    ("image/png", &["image/x-png"]),
    ("image/svg+xml", &["image/svg"]),
    ("image/vnd.adobe.photoshop", &["image/x-photoshop"]),
    ("image/vnd.microsoft.icon", &["image/x-icon", "image/ico"]),
    ("text/calendar", &["text/x-vcalendar"]),
    ("text/css", &["application/css"]),
    ("text/csv", &["application/csv", "text/x-csv", "text/comma-separated-values"]),
    ("text/html", &["application/html"]),
    ("text/javascript", &["application/javascript", "application/x-javascript", "application/ecmascript"]),
    ("text/markdown", &["text/x-markdown"]),
    ("text/tab-separated-values", &["text/tsv"]),
    ("text/vcard", &["text/x-vcard", "text/directory"]),
    ("text/xml", &["application/xml"]),
    ("video/mp4", &["video/x-m4v", "video/m4v"]),
    ("video/quicktime", &["video/x-quicktime"]),
    ("video/x-msvideo", &["video/avi", "video/msvideo"]),
];

/// Returns the name of a type to which all of its aliases map. A type without aliases is its own name.
pub fn canonical_name(mime_type: &str) -> &str {
    let of_group =
        |(name, aliases): &&(&'static str, &[&str])| *name == mime_type || aliases.contains(&mime_type);
    ALIASES.iter().find(of_group).map_or(mime_type, |(name, _)| name)
}

/// Returns a type with all of its aliases, by which a list finds files of earlier releases and of other
/// detectors.
pub fn names_of_type(mime_type: &str) -> Vec<&str> {
    let name = canonical_name(mime_type);
    match ALIASES.iter().find(|(canonical, _)| *canonical == name) {
        Some((_, aliases)) => std::iter::once(name).chain(aliases.iter().copied()).collect(),
        None => vec![mime_type],
    }
}

/// Returns whether two names are of the same type.
pub fn is_same_type(one: &str, two: &str) -> bool {
    one == two || canonical_name(one) == canonical_name(two)
}

/// Returns the media type for the extension of a name, if the extension is common.
pub fn type_from_extension(name: &str) -> Option<&'static str> {
    let extension = extension(name)?;
    text_type(&extension).or_else(|| binary_type(&extension))
}

/// Returns the media type for the extension of a name, if the type consists of text. The bytes of such types do
/// not identify them.
pub fn text_type_from_extension(name: &str) -> Option<&'static str> {
    text_type(&extension(name)?)
}

/// Returns the media type for the extension of a name, if the type does not consist of text.
pub fn binary_type_from_extension(name: &str) -> Option<&'static str> {
    binary_type(&extension(name)?)
}

fn text_type(extension: &str) -> Option<&'static str> {
    Some(match extension {
        "txt" | "text" | "log" => "text/plain",
        "csv" => "text/csv",
        "tsv" => "text/tab-separated-values",
        "json" => "application/json",
        "ndjson" | "jsonl" => "application/x-ndjson",
        "md" | "markdown" => "text/markdown",
        "css" => "text/css",
        "xml" => "text/xml",
        "htm" | "html" => "text/html",
        "svg" => "image/svg+xml",
        "ics" => "text/calendar",
        "vcf" => "text/vcard",
        "yaml" | "yml" => "application/yaml",
        _ => return None,
    })
}

fn binary_type(extension: &str) -> Option<&'static str> {
    Some(match extension {
        "pdf" => "application/pdf",
        "doc" => "application/msword",
        "docx" => "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "xls" => "application/vnd.ms-excel",
        "xlsx" => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "ppt" => "application/vnd.ms-powerpoint",
        "pptx" => "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        "odt" => "application/vnd.oasis.opendocument.text",
        "ods" => "application/vnd.oasis.opendocument.spreadsheet",
        "odp" => "application/vnd.oasis.opendocument.presentation",
        "rtf" => "application/rtf",
        "epub" => "application/epub+zip",
        "zip" => "application/zip",
        "gz" => "application/gzip",
        "jpg" | "jpeg" => "image/jpeg",
        "png" => "image/png",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "avif" => "image/avif",
        "heic" | "heif" => "image/heic",
        "tif" | "tiff" => "image/tiff",
        "bmp" => "image/bmp",
        "ico" => "image/vnd.microsoft.icon",
        "mp4" | "m4v" => "video/mp4",
        "3gp" => "video/3gpp",
        "ogv" => "video/ogg",
        "webm" => "video/webm",
        "mov" => "video/quicktime",
        "mkv" => "video/x-matroska",
        "avi" => "video/x-msvideo",
        "mp3" => "audio/mpeg",
        "m4a" | "m4b" => "audio/mp4",
        "weba" => "audio/webm",
        "wav" => "audio/x-wav",
        "flac" => "audio/flac",
        "ogg" | "oga" | "opus" => "audio/ogg",
        "aac" => "audio/aac",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::domain::media_type::is_media_type;

    #[test]
    fn each_name_is_valid_and_of_one_type() {
        let mut names = BTreeSet::new();
        for (name, aliases) in ALIASES {
            for name in std::iter::once(&name).chain(aliases) {
                assert!(is_media_type(name), "{name}");
                assert!(names.insert(*name), "{name} is of two types");
            }
        }
    }

    #[test]
    fn aliases_are_the_same_type() {
        assert_eq!(canonical_name("audio/x-m4a"), "audio/mp4");
        assert_eq!(canonical_name("image/heif"), "image/heic");
        assert_eq!(canonical_name("image/png"), "image/png");
        assert_eq!(canonical_name("application/x-unknown"), "application/x-unknown");
        assert!(is_same_type("image/heif", "image/heic") && is_same_type("a/b", "a/b"));
        assert!(!is_same_type("image/png", "image/jpeg"));
        assert_eq!(names_of_type("audio/m4a"), ["audio/mp4", "audio/m4a", "audio/x-m4a"]);
        assert_eq!(names_of_type("video/webm"), ["video/webm"]);
        assert_eq!(canonical_name("audio/opus"), "audio/ogg");
        assert_eq!(canonical_name("video/x-m4v"), "video/mp4");
    }

    #[test]
    fn extensions_have_canonical_types() {
        for (name, mime_type) in [
            ("data.CSV", "text/csv"),
            ("photo.HEIC", "image/heic"),
            ("voice.m4a", "audio/mp4"),
            ("notes.md", "text/markdown"),
            ("team.vcf", "text/vcard"),
            ("drawing.svg", "image/svg+xml"),
        ] {
            assert_eq!(type_from_extension(name), Some(mime_type));
            assert_eq!(canonical_name(mime_type), mime_type);
        }
        assert_eq!(type_from_extension("README"), None);
        assert_eq!(text_type_from_extension("a.png"), None);
        assert_eq!(binary_type_from_extension("a.csv"), None);
    }
}
