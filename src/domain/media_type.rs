//! Media types: what a client declares, what the bytes say, and which of the two counts.

use super::sql_enum::sql_enum;

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

/// POLICY: declared and sniffed types disagree only when both are known and of different families; OOXML and zip, text
/// kinds and empty declarations do not.
fn disagree(declared: &str, sniffed: &str) -> bool {
    family(declared) != family(sniffed) && !(is_text(declared) && is_text(sniffed))
}

/// Whether the declared type is a finer name for what the bytes show.
fn is_refinement(declared: &str, sniffed: &str) -> bool {
    let container = sniffed == "application/zip" || sniffed == "application/x-ole-storage";
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
        || matches!(mime_type, "application/json" | "application/xml" | "application/javascript")
}

fn family(mime_type: &str) -> &str {
    mime_type.split_once('/').map_or(mime_type, |(family, _)| family)
}

/// The type without parameters, in lower case: `Text/Plain; charset=utf-8` is `text/plain`.
fn essence(mime_type: &str) -> String {
    mime_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
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
