//! Media types: what a client declares, what the bytes say, and which of the two counts.

use super::{sql_enum::sql_enum, text::extension};

sql_enum! {
    /// The kind of a file, by its recognised type. Limits and usage are kept per kind.
    MediaKind {
        /// image/*
        Image = 1 => "image",
        /// video/*
        Video = 2 => "video",
        /// audio/*
        Audio = 3 => "audio",
        /// application/*
        Document = 4 => "document",
        /// Everything else, text/* too.
        Other = 5 => "other",
    }
}

/// What is served where neither the client nor the bytes say anything.
pub const UNKNOWN: &str = "application/octet-stream";

/// A container of old office files: its first bytes do not tell which of them it holds.
pub const OLE_CONTAINER: &str = "application/x-ole-storage";

/// A container of anything. New office files are told apart from it by the names of their entries.
pub const ZIP_CONTAINER: &str = "application/zip";

/// The longest declared type, in characters.
pub const DECLARED_CHARACTERS_MAX: usize = 255;

impl MediaKind {
    /// The kind of a media type.
    pub fn of(mime_type: &str) -> Self {
        match family(mime_type) {
            "image" => Self::Image,
            "video" => Self::Video,
            "audio" => Self::Audio,
            "application" => Self::Document,
            _ => Self::Other,
        }
    }
}

/// The type that counts, and whether it differs from what was declared so much that the caller should hear of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The type that is recorded and served.
    pub mime_type: String,
    /// The declared type was of another family, and the bytes won.
    pub is_corrected: bool,
}

/// Settles what a file is. The bytes win where they say something definite; text kinds and containers, where the bytes
/// cannot tell (CSV from Markdown, DOCX from ZIP), keep the declared type.
pub fn settle(declared: &str, sniffed: Option<&str>) -> Settled {
    let declared = essence(declared);
    let keep = |mime_type: &str| Settled { mime_type: mime_type.to_owned(), is_corrected: false };
    match (declared.as_str(), sniffed) {
        ("" | UNKNOWN, Some(sniffed)) => keep(sniffed),
        ("" | UNKNOWN, None) => keep(UNKNOWN),
        (declared, None) => keep(declared),
        (declared, Some(sniffed)) if declared == sniffed => keep(declared),
        (declared, Some(sniffed)) if is_refinement(declared, sniffed) => keep(declared),
        (declared, Some(sniffed)) => {
            Settled { mime_type: sniffed.to_owned(), is_corrected: disagree(declared, sniffed) }
        }
    }
}

/// What a closed list of types judges: what the bytes show. Where they show nothing, what was declared; where that says
/// nothing either, the extension. A zip file in which no office file was recognised is a zip file, whatever it was
/// declared as.
pub fn judged(settled: &str, sniffed: Option<&str>, name: &str) -> String {
    match (sniffed, settled) {
        (Some(ZIP_CONTAINER), _) => ZIP_CONTAINER,
        (_, UNKNOWN | OLE_CONTAINER) => by_extension(name).unwrap_or(settled),
        (_, settled) => settled,
    }
    .to_owned()
}

/// The type that the extension of a name stands for; only of types that closed lists speak of.
fn by_extension(name: &str) -> Option<&'static str> {
    Some(match extension(name)?.as_str() {
        "pdf" => "application/pdf",
        "doc" => "application/msword",
        "docx" => "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "xls" => "application/vnd.ms-excel",
        "xlsx" => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "jpg" | "jpeg" => "image/jpeg",
        "png" => "image/png",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "svg" => "image/svg+xml",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        "mov" => "video/quicktime",
        "mp3" => "audio/mpeg",
        _ => return None,
    })
}

/// POLICY: declared and sniffed types disagree only when both are known and of different families; OOXML and zip, text
/// kinds and empty declarations do not.
fn disagree(declared: &str, sniffed: &str) -> bool {
    family(declared) != family(sniffed) && !(is_text(declared) && is_text(sniffed))
}

/// Whether the declared type is a finer name for what the bytes show.
fn is_refinement(declared: &str, sniffed: &str) -> bool {
    let container = sniffed == ZIP_CONTAINER || sniffed == OLE_CONTAINER;
    (container && is_document_container(declared)) || (is_text(declared) && is_text(sniffed))
}

fn is_document_container(mime_type: &str) -> bool {
    mime_type.starts_with("application/vnd.")
        || matches!(mime_type, "application/epub+zip" | "application/java-archive" | "application/msword")
}

fn is_text(mime_type: &str) -> bool {
    family(mime_type) == "text"
        || mime_type.ends_with("+xml")
        || mime_type.ends_with("+json")
        || matches!(
            mime_type,
            "application/json"
                | "application/x-ndjson"
                | "application/xml"
                | "application/yaml"
                | "application/x-yaml"
                | "application/toml"
                | "application/sql"
                | "application/javascript"
                | "application/x-javascript"
                | "application/ecmascript"
                | "application/typescript"
                | "application/x-sh"
                | "message/rfc822"
        )
}

fn family(mime_type: &str) -> &str {
    mime_type.split_once('/').map_or(mime_type, |(family, _)| family)
}

/// The top-level types that there are.
const FAMILIES: [&str; 10] =
    ["application", "audio", "font", "image", "message", "model", "multipart", "text", "video", "chemical"];

/// What clients say that know nothing.
const SAYS_NOTHING: [&str; 4] =
    ["binary/octet-stream", "application/binary", "application/x-download", "application/force-download"];

/// The type without parameters, in lower case: `Text/Plain; charset=utf-8` is `text/plain`. Empty where it is no media
/// type, or one that says nothing: it will be served, so what is no type must not pass for one.
fn essence(mime_type: &str) -> String {
    let essence = mime_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if is_media_type(&essence) && !SAYS_NOTHING.contains(&essence.as_str()) { essence } else { String::new() }
}

/// Whether this is a media type in lower case, without parameters.
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

    fn settled(declared: &str, sniffed: Option<&str>) -> (String, bool) {
        let Settled { mime_type, is_corrected } = settle(declared, sniffed);
        (mime_type, is_corrected)
    }

    #[test]
    fn the_bytes_win_over_a_declaration_of_another_family() {
        assert_eq!(settled("application/pdf", Some("image/png")), ("image/png".into(), true));
    }

    #[test]
    fn the_bytes_win_quietly_within_a_family() {
        assert_eq!(settled("image/jpeg", Some("image/png")), ("image/png".into(), false));
    }

    #[test]
    fn text_kinds_and_office_files_keep_their_declared_name() {
        assert_eq!(settled("text/csv; charset=utf-8", Some("text/plain")), ("text/csv".into(), false));
        assert_eq!(settled("image/svg+xml", Some("text/xml")), ("image/svg+xml".into(), false));
        let docx = "application/vnd.openxmlformats-officedocument.wordprocessingml.document";
        assert_eq!(settled(docx, Some("application/zip")), (docx.into(), false));
    }

    #[test]
    fn types_disagree_only_across_families_that_are_known() {
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
            assert!(!settle(declared, sniffed).is_corrected, "{declared} {sniffed:?}");
        }
        for (declared, sniffed) in
            [("image/png", ZIP_CONTAINER), ("text/plain", "image/png"), ("video/mp4", "text/plain")]
        {
            assert!(settle(declared, Some(sniffed)).is_corrected, "{declared} {sniffed}");
        }
    }

    #[test]
    fn what_is_no_media_type_is_never_served_as_one() {
        for nonsense in ["png", "a/b", "image/", "/png", "text/pl ain", "text/a\"b", "binary/octet-stream"] {
            assert_eq!(settled(nonsense, None), (UNKNOWN.into(), false), "{nonsense}");
        }
    }

    #[test]
    fn an_excel_file_of_the_old_kind_keeps_its_name() {
        let excel = "application/vnd.ms-excel";
        assert_eq!(settled(excel, Some(OLE_CONTAINER)), (excel.into(), false));
    }

    #[test]
    fn a_closed_list_judges_the_bytes_then_the_declaration_then_the_extension() {
        let docx = "application/vnd.openxmlformats-officedocument.wordprocessingml.document";
        let judge = |declared: &str, sniffed: Option<&str>, name: &str| {
            judged(&settle(declared, sniffed).mime_type, sniffed, name)
        };
        assert_eq!(judge("image/png", Some("application/pdf"), "a.png"), "application/pdf");
        assert_eq!(judge("image/png", None, "a.pdf"), "image/png");
        assert_eq!(judge("", None, "a.PDF"), "application/pdf");
        assert_eq!(judge("", None, "a.bin"), UNKNOWN);
        assert_eq!(judge("", Some(OLE_CONTAINER), "a.xls"), "application/vnd.ms-excel");
        assert_eq!(judge("application/msword", Some(OLE_CONTAINER), "a"), "application/msword");
        assert_eq!(judge(docx, Some(ZIP_CONTAINER), "a.docx"), ZIP_CONTAINER);
        assert_eq!(judge(docx, Some(docx), "a.docx"), docx);
    }

    #[test]
    fn nothing_known_is_octet_stream() {
        assert_eq!(settled("", None), (UNKNOWN.into(), false));
        assert_eq!(settled("", Some("image/gif")), ("image/gif".into(), false));
    }

    #[test]
    fn text_counts_as_other_and_application_as_document() {
        assert_eq!(MediaKind::of("text/plain"), MediaKind::Other);
        assert_eq!(MediaKind::of("application/pdf"), MediaKind::Document);
    }
}
