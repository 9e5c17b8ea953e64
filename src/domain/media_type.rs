//! Media types: resolution of the declared type and the type that is detected in the bytes.

use super::{
    media_names::{binary_type_from_extension, canonical_name, is_same_type, text_type_from_extension},
    sql_enum::sql_enum,
};

sql_enum! {
    /// The kind of a file, by its resolved media type. Size limits and usage are per kind.
    MediaKind {
        /// Media types `image/*`.
        Image = 1 => "image",
        /// Media types `video/*`.
        Video = 2 => "video",
        /// Media types `audio/*`.
        Audio = 3 => "audio",
        /// Media types `application/*`.
        Document = 4 => "document",
        /// All other types, including `text/*`.
        Other = 5 => "other",
    }
}

/// The type of files for which neither the client nor the bytes indicate a type.
pub const UNKNOWN: &str = "application/octet-stream";

/// The container format of old office files. The first bytes do not indicate which kind of office file it is.
pub const OLE_CONTAINER: &str = "application/x-ole-storage";

/// The ZIP container format. New office files are distinguished from it by the names of their entries.
pub const ZIP_CONTAINER: &str = "application/zip";

/// The maximum length of a declared type, in characters.
pub const DECLARED_CHARACTERS_MAX: usize = 255;

impl MediaKind {
    /// Returns the kind of a media type.
    pub fn from_mime_type(mime_type: &str) -> Self {
        match family(mime_type) {
            "image" => Self::Image,
            "video" => Self::Video,
            "audio" => Self::Audio,
            "application" => Self::Document,
            _ => Self::Other,
        }
    }
}

/// The resolved media type of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedType {
    /// The type that is recorded and served.
    pub mime_type: String,
    /// Whether the detected type replaced a declared type of another family. The upload then returns a
    /// warning.
    pub is_corrected: bool,
}

/// Resolves the media type of the file with this name.
///
/// A type that is detected in the bytes takes precedence over the declared one, because a declaration can be
/// wrong or deceptive. Three kinds of bytes do not determine the type: containers of documents (DOCX is a ZIP file),
/// for which the declared type is used; and text (CSV, JSON, Markdown) and containers of audio and video (a voice
/// memo can be an MP4 file), for which the declared type is used, or else the extension of the name.
pub fn resolve_type(declared: &str, sniffed: Option<&str>, name: &str) -> ResolvedType {
    let declared = essence(declared);
    let keep = |mime_type: &str| ResolvedType { mime_type: mime_type.to_owned(), is_corrected: false };
    match (declared.as_str(), sniffed) {
        ("" | UNKNOWN, Some(sniffed)) => keep(refine(sniffed, name)),
        ("" | UNKNOWN, None) => keep(UNKNOWN),
        (declared, None) => keep(declared),
        (declared, Some(sniffed)) if is_same_type(declared, sniffed) && !is_text(declared) => keep(sniffed),
        (declared, Some(sniffed)) if is_in_container(declared, sniffed) => keep(canonical_name(declared)),
        (declared, Some(sniffed)) if is_refinement(declared, sniffed) => keep(declared),
        (declared, Some(sniffed)) => ResolvedType {
            mime_type: refine(sniffed, name).to_owned(),
            is_corrected: is_contradiction(declared, sniffed),
        },
    }
}

/// Returns the type of text, or of a container of audio and video, from the extension of its name. Types of other
/// bytes are unchanged.
fn refine<'a>(sniffed: &'a str, name: &str) -> &'a str {
    let by_extension = match is_text(sniffed) {
        true => text_type_from_extension(name),
        false => binary_type_from_extension(name).filter(|by_name| is_in_container(by_name, sniffed)),
    };
    by_extension.unwrap_or(sniffed)
}

/// Containers of audio, video or both. The first bytes do not show which; these are the detected types.
const AUDIO_VIDEO_CONTAINERS: [&str; 5] =
    ["video/mp4", "video/webm", "video/x-matroska", "video/3gpp", "audio/ogg"];

/// Returns whether a type is one of the two of a detected container of audio and video.
fn is_in_container(mime_type: &str, sniffed: &str) -> bool {
    let mime_type = canonical_name(mime_type);
    AUDIO_VIDEO_CONTAINERS.contains(&sniffed)
        && matches!(family(mime_type), "audio" | "video")
        && mime_type.split_once('/').map(|(_, subtype)| subtype)
            == sniffed.split_once('/').map(|(_, subtype)| subtype)
}

/// Returns the media type that is checked against a list of allowed types.
///
/// It is the resolved type. If that is unknown, and the bytes are therefore no text, it is determined from the
/// extension of `name`. A ZIP file in
/// which no office file was detected counts as a ZIP file, regardless of its declared type.
pub fn type_for_check(resolved: &str, sniffed: Option<&str>, name: &str) -> String {
    match (sniffed, resolved) {
        (Some(ZIP_CONTAINER), _) => ZIP_CONTAINER,
        (_, UNKNOWN | OLE_CONTAINER) => binary_type_from_extension(name).unwrap_or(resolved),
        (_, resolved) => resolved,
    }
    .to_owned()
}

/// Returns whether the declared type contradicts the detected one: both are known and of different families.
/// Two text types never contradict each other.
fn is_contradiction(declared: &str, sniffed: &str) -> bool {
    family(declared) != family(sniffed) && !(is_text(declared) && is_text(sniffed))
}

/// Returns whether the declared type is a more specific name of the detected one.
fn is_refinement(declared: &str, sniffed: &str) -> bool {
    let container = sniffed == ZIP_CONTAINER || sniffed == OLE_CONTAINER;
    (container && is_document_container(declared)) || (is_text(declared) && is_text(sniffed))
}

fn is_document_container(mime_type: &str) -> bool {
    mime_type.starts_with("application/vnd.")
        || matches!(mime_type, "application/epub+zip" | "application/java-archive" | "application/msword")
}

fn is_text(mime_type: &str) -> bool {
    let mime_type = canonical_name(mime_type);
    family(mime_type) == "text"
        || mime_type.ends_with("+xml")
        || mime_type.ends_with("+json")
        || matches!(
            mime_type,
            "application/json"
                | "application/x-ndjson"
                | "application/yaml"
                | "application/toml"
                | "application/sql"
                | "application/typescript"
                | "application/x-sh"
                | "message/rfc822"
        )
}

fn family(mime_type: &str) -> &str {
    mime_type.split_once('/').map_or(mime_type, |(family, _)| family)
}

/// The accepted top-level types.
const FAMILIES: [&str; 10] =
    ["application", "audio", "font", "image", "message", "model", "multipart", "text", "video", "chemical"];

/// Generic types, which do not identify a format.
const UNSPECIFIC_TYPES: [&str; 4] =
    ["binary/octet-stream", "application/binary", "application/x-download", "application/force-download"];

/// Returns the type in lower case and without parameters: `text/plain` for `Text/Plain; charset=utf-8`.
///
/// Returns an empty string if it is not a media type or contains no information. The type is served to
/// clients, so it must be valid.
fn essence(mime_type: &str) -> String {
    let essence = mime_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if is_media_type(&essence) && !UNSPECIFIC_TYPES.contains(&essence.as_str()) {
        essence
    } else {
        String::new()
    }
}

/// Returns whether the string is a media type in lower case and without parameters.
pub fn is_media_type(text: &str) -> bool {
    let is_token = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte))
    };
    let is_lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
    let parts = text.split_once('/').filter(|_| is_lower && text.len() <= DECLARED_CHARACTERS_MAX);
    parts.is_some_and(|(family, subtype)| FAMILIES.contains(&family) && is_token(subtype))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(declared: &str, sniffed: Option<&str>) -> (String, bool) {
        let ResolvedType { mime_type, is_corrected } = resolve_type(declared, sniffed, "");
        (mime_type, is_corrected)
    }

    #[test]
    fn detected_type_overrides_another_family() {
        assert_eq!(resolved("application/pdf", Some("image/png")), ("image/png".into(), true));
    }

    #[test]
    fn correction_within_a_family_is_silent() {
        assert_eq!(resolved("image/jpeg", Some("image/png")), ("image/png".into(), false));
    }

    #[test]
    fn text_and_office_files_keep_their_declared_type() {
        assert_eq!(resolved("text/csv; charset=utf-8", Some("text/plain")), ("text/csv".into(), false));
        assert_eq!(resolved("image/svg+xml", Some("text/xml")), ("image/svg+xml".into(), false));
        let docx = "application/vnd.openxmlformats-officedocument.wordprocessingml.document";
        assert_eq!(resolved(docx, Some("application/zip")), (docx.into(), false));
    }

    #[test]
    fn aliases_are_no_correction() {
        assert_eq!(resolved("image/heif", Some("image/heic")), ("image/heic".into(), false));
        assert_eq!(resolved("audio/x-m4a", Some("audio/mp4")), ("audio/mp4".into(), false));
        assert_eq!(
            resolved("application/x-zip-compressed", Some(ZIP_CONTAINER)),
            (ZIP_CONTAINER.into(), false)
        );
    }

    #[test]
    fn audio_in_a_video_container_is_audio() {
        for (declared, name, sniffed, expected) in [
            ("audio/mp4", "memo.mp4", "video/mp4", "audio/mp4"),
            ("audio/x-m4a", "memo", "video/mp4", "audio/mp4"),
            ("", "memo.m4a", "video/mp4", "audio/mp4"),
            ("application/octet-stream", "memo.m4b", "video/mp4", "audio/mp4"),
            ("audio/webm;codecs=opus", "memo", "video/webm", "audio/webm"),
            ("", "memo.weba", "video/webm", "audio/webm"),
            ("audio/3gpp", "memo.3gp", "video/3gpp", "audio/3gpp"),
            ("video/ogg", "film.ogv", "audio/ogg", "video/ogg"),
            ("audio/opus", "memo.opus", "audio/ogg", "audio/ogg"),
            // The container is unchanged.
            ("", "film.mp4", "video/mp4", "video/mp4"),
            ("video/mp4", "memo.m4a", "video/mp4", "video/mp4"),
            ("", "memo.mp3", "video/mp4", "video/mp4"),
            ("audio/webm", "memo", "video/mp4", "video/mp4"),
            // The bytes show that it is audio.
            ("video/mp4", "memo.mp4", "audio/mp4", "audio/mp4"),
        ] {
            let resolved = resolve_type(declared, Some(sniffed), name);
            assert_eq!(resolved.mime_type, expected, "{declared} {name} {sniffed}");
        }
        assert!(!resolve_type("audio/mp4", Some("video/mp4"), "").is_corrected);
        assert!(resolve_type("audio/mpeg", Some("video/mp4"), "").is_corrected);
    }

    #[test]
    fn text_has_declared_type_or_that_of_its_extension() {
        let text = Some("text/plain");
        for (declared, name, expected) in [
            ("text/csv", "a.txt", "text/csv"),
            ("application/csv", "a", "application/csv"),
            ("text/vcard", "a", "text/vcard"),
            ("application/ndjson", "a", "application/ndjson"),
            ("", "data.csv", "text/csv"),
            ("application/octet-stream", "data.tsv", "text/tab-separated-values"),
            ("", "data.json", "application/json"),
            ("", "data.jsonl", "application/x-ndjson"),
            ("", "README.md", "text/markdown"),
            ("", "style.css", "text/css"),
            ("", "feed.xml", "text/xml"),
            ("", "page.html", "text/html"),
            ("", "drawing.svg", "image/svg+xml"),
            ("", "meeting.ics", "text/calendar"),
            ("", "team.vcf", "text/vcard"),
            ("", "chart.yml", "application/yaml"),
            ("", "notes", "text/plain"),
            ("", "photo.png", "text/plain"),
            // Windows declares this type for CSV files if Excel is installed.
            ("application/vnd.ms-excel", "data.csv", "text/csv"),
        ] {
            assert_eq!(resolve_type(declared, text, name).mime_type, expected, "{declared} {name}");
        }
        // The extension says nothing about bytes that are no text.
        assert_eq!(resolve_type("", None, "data.csv").mime_type, UNKNOWN);
        assert_eq!(resolve_type("", Some("image/png"), "data.csv").mime_type, "image/png");
        assert_eq!(type_for_check(UNKNOWN, None, "data.csv"), UNKNOWN);
    }

    #[test]
    fn only_known_types_of_different_families_conflict() {
        let docx = "application/vnd.openxmlformats-officedocument.wordprocessingml.document";
        let agree = [
            ("application/json", Some("text/plain")),
            ("application/yaml", Some("text/plain")),
            ("text/markdown", Some("text/html")),
            ("image/svg+xml", Some("text/plain")),
            (docx, Some(ZIP_CONTAINER)),
            ("application/zip", Some(docx)),
            ("application/vnd.ms-excel", Some(OLE_CONTAINER)),
            ("image/jpeg", None),
            ("", Some("image/png")),
            ("application/octet-stream", Some("image/png")),
            ("binary/octet-stream", Some("image/png")),
            ("png", Some("image/png")),
            ("image/", Some("text/plain")),
        ];
        for (declared, sniffed) in agree {
            assert!(!resolve_type(declared, sniffed, "").is_corrected, "{declared} {sniffed:?}");
        }
        for (declared, sniffed) in
            [("image/png", ZIP_CONTAINER), ("text/plain", "image/png"), ("video/mp4", "text/plain")]
        {
            assert!(resolve_type(declared, Some(sniffed), "").is_corrected, "{declared} {sniffed}");
        }
    }

    #[test]
    fn invalid_media_types_are_never_served() {
        for nonsense in ["png", "a/b", "image/", "/png", "text/pl ain", "text/a\"b", "binary/octet-stream"] {
            assert_eq!(resolved(nonsense, None), (UNKNOWN.into(), false), "{nonsense}");
        }
    }

    #[test]
    fn old_excel_files_keep_their_declared_type() {
        let excel = "application/vnd.ms-excel";
        assert_eq!(resolved(excel, Some(OLE_CONTAINER)), (excel.into(), false));
    }

    #[test]
    fn type_check_uses_bytes_then_declaration_then_extension() {
        let docx = "application/vnd.openxmlformats-officedocument.wordprocessingml.document";
        let check = |declared: &str, sniffed: Option<&str>, name: &str| {
            type_for_check(&resolve_type(declared, sniffed, name).mime_type, sniffed, name)
        };
        assert_eq!(check("image/png", Some("application/pdf"), "a.png"), "application/pdf");
        assert_eq!(check("image/png", None, "a.pdf"), "image/png");
        assert_eq!(check("", None, "a.PDF"), "application/pdf");
        assert_eq!(check("", None, "a.bin"), UNKNOWN);
        assert_eq!(check("", Some(OLE_CONTAINER), "a.xls"), "application/vnd.ms-excel");
        assert_eq!(check("application/msword", Some(OLE_CONTAINER), "a"), "application/msword");
        assert_eq!(check(docx, Some(ZIP_CONTAINER), "a.docx"), ZIP_CONTAINER);
        assert_eq!(check(docx, Some(docx), "a.docx"), docx);
    }

    #[test]
    fn unknown_type_is_octet_stream() {
        assert_eq!(resolved("", None), (UNKNOWN.into(), false));
        assert_eq!(resolved("", Some("image/gif")), ("image/gif".into(), false));
    }

    #[test]
    fn text_is_other_and_application_is_document() {
        assert_eq!(MediaKind::from_mime_type("text/plain"), MediaKind::Other);
        assert_eq!(MediaKind::from_mime_type("application/pdf"), MediaKind::Document);
    }
}
