//! Detects a media type from the first bytes of a file.

use crate::domain::media_type::OLE_CONTAINER;

/// The number of bytes examined. They contain every relevant signature; office files are identified by
/// the first entries of the archive.
pub const SNIFF_BYTES_MAX: usize = 8 * 1024;

/// Returns the media type detected from the first bytes, or `None` if they are ambiguous.
pub fn sniff_media_type(head: &[u8]) -> Option<String> {
    if head.is_empty() {
        return None;
    }
    // The libraries report every such container as a Word file, or look beyond the first bytes.
    if head.starts_with(OLE_SIGNATURE) {
        return Some(OLE_CONTAINER.to_owned());
    }
    if head.starts_with(ZIP_ENTRY)
        && let Some(office) = office_file(head)
    {
        return Some(office.to_owned());
    }
    // Both libraries look for signatures; the first one also inspects media containers, the second one covers
    // more types.
    let known = match infer::get(head) {
        Some(kind) => kind.mime_type().to_owned(),
        None => file_format::FileFormat::from_bytes(head).media_type().to_owned(),
    };
    match known.as_str() {
        "application/octet-stream" | "text/plain" | "text/xml" if is_svg(head) => {
            Some("image/svg+xml".to_owned())
        }
        "application/octet-stream" => looks_like_text(head).then(|| "text/plain".to_owned()),
        // The library reports this type for any text that contains the word.
        "image/svg+xml" => Some(if is_svg(head) { known } else { "text/xml".to_owned() }),
        _ => Some(known),
    }
}

const OLE_SIGNATURE: &[u8] = &[0xD0, 0xCF, 0x11, 0xE0, 0xA1, 0xB1, 0x1A, 0xE1];
const ZIP_ENTRY: &[u8] = b"PK\x03\x04";
/// The offset of an entry's name from its signature.
const ZIP_NAME_OFFSET: usize = 30;

/// Returns the type of an office file from the folders of the zip entries that begin within the first bytes,
/// in any order.
fn office_file(head: &[u8]) -> Option<&'static str> {
    let starts = head.windows(ZIP_ENTRY.len()).enumerate().filter(|(_, window)| *window == ZIP_ENTRY);
    starts.filter_map(|(at, _)| head.get(at + ZIP_NAME_OFFSET..)).find_map(|name| {
        let kinds = [
            (&b"word/"[..], "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
            (b"xl/", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
            (b"ppt/", "application/vnd.openxmlformats-officedocument.presentationml.presentation"),
        ];
        kinds.into_iter().find(|(folder, _)| name.starts_with(folder)).map(|(_, kind)| kind)
    })
}

/// Whether the first element of a text is `<svg`. Declarations and comments may precede it.
fn is_svg(head: &[u8]) -> bool {
    let text = String::from_utf8_lossy(head);
    let mut rest = text.trim_start_matches('\u{feff}').trim_start();
    loop {
        let end = match rest {
            _ if rest.starts_with("<!--") => "-->",
            _ if rest.starts_with("<?") || rest.starts_with("<!") => ">",
            _ => break,
        };
        let Some((_, after)) = rest.split_once(end) else { return false };
        rest = after.trim_start();
    }
    rest.strip_prefix("<svg").is_some_and(|after| after.starts_with([' ', '>', '\n', '\r', '\t', '/']))
}

/// Whether the bytes are UTF-8 without NUL, except for a truncated character at the end.
fn looks_like_text(head: &[u8]) -> bool {
    let valid_bytes = match std::str::from_utf8(head) {
        Ok(_) => head.len(),
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        Err(_) => return false,
    };
    valid_bytes > 0 && !head.contains(&0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detects_signatures() {
        assert_eq!(sniff_media_type(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR").as_deref(), Some("image/png"));
        assert_eq!(sniff_media_type(b"%PDF-1.7\n").as_deref(), Some("application/pdf"));
        assert_eq!(sniff_media_type(b"\xff\xd8\xff\xe0\0\x10JFIF").as_deref(), Some("image/jpeg"));
    }

    /// Returns the start of a zip file with entries of these names.
    fn zip(names: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for name in names {
            bytes.extend_from_slice(ZIP_ENTRY);
            bytes.extend_from_slice(&[0; ZIP_NAME_OFFSET - 4]);
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b"some bytes");
        }
        bytes
    }

    #[test]
    fn detects_office_files_by_zip_entries() {
        let docx = "application/vnd.openxmlformats-officedocument.wordprocessingml.document";
        let xlsx = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet";
        assert_eq!(
            sniff_media_type(&zip(&["[Content_Types].xml", "_rels/.rels", "word/document.xml"])).as_deref(),
            Some(docx)
        );
        assert_eq!(
            sniff_media_type(&zip(&["xl/workbook.xml", "[Content_Types].xml"])).as_deref(),
            Some(xlsx)
        );
        assert_eq!(sniff_media_type(&zip(&["notes.txt", "words/a"])).as_deref(), Some("application/zip"));
    }

    #[test]
    fn ole_file_is_reported_as_container() {
        let mut old = OLE_SIGNATURE.to_vec();
        old.extend_from_slice(&[0; 600]);
        assert_eq!(sniff_media_type(&old).as_deref(), Some(OLE_CONTAINER));
    }

    #[test]
    fn text_starting_with_svg_is_svg() {
        for drawing in [
            "<svg/>",
            "<?xml version=\"1.0\"?>\n<!-- <html> -->\n<!DOCTYPE svg>\n<svg xmlns=\"x\">",
            "\u{feff}<svg>",
        ] {
            assert_eq!(sniff_media_type(drawing.as_bytes()).as_deref(), Some("image/svg+xml"), "{drawing}");
        }
        for other in [
            "<html><svg></svg></html>",
            "the element <svg> draws",
            "<svgx>",
            "<?xml version=\"1.0\"?><a><svg/></a>",
        ] {
            assert_ne!(sniff_media_type(other.as_bytes()).as_deref(), Some("image/svg+xml"), "{other}");
        }
    }

    #[test]
    fn utf8_is_text_in_any_language() {
        assert_eq!(sniff_media_type("Grüße, 世界".as_bytes()).as_deref(), Some("text/plain"));
        let cut_in_a_character = &"日本".as_bytes()[..4];
        assert_eq!(sniff_media_type(cut_in_a_character).as_deref(), Some("text/plain"));
    }

    #[test]
    fn noise_and_empty_input_are_unknown() {
        assert_eq!(sniff_media_type(&[0, 159, 146, 150, 3, 1]).as_deref(), None);
        assert_eq!(sniff_media_type(b"").as_deref(), None);
    }
}
