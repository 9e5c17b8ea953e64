//! Detects a media type from the first bytes of a file.

use crate::domain::{media_names::canonical_name, media_type::OLE_CONTAINER};

/// The number of bytes examined. They contain every relevant signature; office files are identified by
/// the first entries of the archive.
pub const SNIFF_BYTES_MAX: usize = 8 * 1024;

/// Returns the media type detected from the first bytes, or `None` if they are ambiguous. Uses registered names.
///
/// Text in UTF-8, UTF-16 or Latin-1 is `text/plain`, unless it begins like one of the types that are recognized.
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
    if let Some(text) = decode_utf16(head) {
        return sniff_media_type(text.as_bytes());
    }
    // Both libraries look for signatures; the first one also inspects media containers, the second one covers
    // more types.
    let known = match infer::get(head) {
        Some(kind) => canonical_name(kind.mime_type()).to_owned(),
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
///
/// Compares bytes: all characters of the syntax are ASCII, and decoding 8 KiB would cost more than everything else
/// here.
fn is_svg(head: &[u8]) -> bool {
    let mut rest = head.strip_prefix(BYTE_ORDER_MARK).unwrap_or(head).trim_ascii_start();
    loop {
        let end: &[u8] = match rest {
            [b'<', b'!', b'-', b'-', ..] => b"-->",
            [b'<', b'?' | b'!', ..] => b">",
            _ => break,
        };
        let Some(at) = rest.windows(end.len()).position(|window| window == end) else { return false };
        rest = rest[at + end.len()..].trim_ascii_start();
    }
    rest.strip_prefix(b"<svg")
        .is_some_and(|after| matches!(after.first(), Some(b' ' | b'>' | b'\n' | b'\r' | b'\t' | b'/')))
}

/// U+FEFF in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Whether the bytes are text in UTF-8 or in Latin-1.
fn looks_like_text(head: &[u8]) -> bool {
    is_utf8(head) || is_latin1(head)
}

/// Whether the bytes are UTF-8 without NUL, except for a truncated character at the end.
fn is_utf8(head: &[u8]) -> bool {
    let valid_bytes = match std::str::from_utf8(head) {
        Ok(_) => head.len(),
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        Err(_) => return false,
    };
    valid_bytes > 0 && !head.contains(&0)
}

/// Whether the bytes are text in Latin-1 or in Windows-1252, its superset: without control characters, and mostly
/// in ASCII, as text in the languages that use these encodings is.
fn is_latin1(head: &[u8]) -> bool {
    let is_control = |byte: u8| {
        (byte < b' ' && !b"\t\n\r\x0c".contains(&byte))
            || [0x7f, 0x81, 0x8d, 0x8f, 0x90, 0x9d].contains(&byte)
    };
    // First, because it ends at the first such byte, which binary data has early.
    if head.iter().any(|byte| is_control(*byte)) {
        return false;
    }
    let ascii_count = head.iter().filter(|byte| byte.is_ascii()).count();
    // Short noise can consist of printable bytes only.
    const ASCII_PERCENT_MIN: usize = 60;
    ascii_count * 100 >= head.len() * ASCII_PERCENT_MIN
}

/// Decodes text in UTF-16. Without a byte order mark, only text in mostly ASCII is recognized: every second byte
/// of it is zero.
fn decode_utf16(head: &[u8]) -> Option<String> {
    let (is_big_endian, text) = match head {
        [0xff, 0xfe, text @ ..] => (false, text),
        [0xfe, 0xff, text @ ..] => (true, text),
        _ => (is_mostly_zero(head, 0).then_some(true).or(is_mostly_zero(head, 1).then_some(false))?, head),
    };
    let unit = |pair: &[u8]| match is_big_endian {
        true => u16::from_be_bytes([pair[0], pair[1]]),
        false => u16::from_le_bytes([pair[0], pair[1]]),
    };
    let mut units: Vec<u16> = text.chunks_exact(2).map(unit).collect();
    // The last character can be truncated.
    units.pop_if(|last| (0xd800..0xdc00).contains(last));
    let decoded = String::from_utf16(&units).ok()?;
    let is_forbidden = |c: char| {
        (c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{c}' | '\u{85}')) || c == '\u{fffe}'
    };
    (!decoded.is_empty() && !decoded.contains(is_forbidden)).then_some(decoded)
}

/// Whether at least nine tenths of the bytes at even (0) or odd (1) offsets are zero, and of the others none.
fn is_mostly_zero(head: &[u8], offset: usize) -> bool {
    const UNITS_MIN: usize = 4;
    let units = head.len() / 2;
    let mut others = 0;
    // Ends early for binary data.
    for pair in head.chunks_exact(2) {
        others += usize::from(pair[offset] != 0);
        if pair[1 - offset] == 0 || others * 10 > units {
            return false;
        }
    }
    units >= UNITS_MIN
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

    /// Returns the first box of a file in the ISO base media format.
    fn ftyp(brand: &[u8; 4], compatible: &[u8]) -> Vec<u8> {
        let length = u32::try_from(16 + compatible.len()).unwrap().to_be_bytes();
        [&length[..], b"ftyp", brand, &[0; 4], compatible, &[0, 0, 0, 8], b"mdat"].concat()
    }

    #[test]
    fn detected_types_have_registered_names() {
        for (head, mime_type) in [
            (ftyp(b"heic", b"mif1heic"), "image/heic"),
            (ftyp(b"heix", b"mif1"), "image/heic"),
            (ftyp(b"mif1", b"mif1heic"), "image/heic"),
            (ftyp(b"M4A ", b"M4A mp42"), "audio/mp4"),
            (ftyp(b"avif", b"avifmif1"), "image/avif"),
            (ftyp(b"isom", b"isomiso2"), "video/mp4"),
            (ftyp(b"qt  ", b"qt  "), "video/quicktime"),
            (b"fLaC\0\0\0\x22".to_vec(), "audio/flac"),
        ] {
            assert_eq!(sniff_media_type(&head).as_deref(), Some(mime_type));
        }
    }

    #[test]
    fn real_files_have_their_types() {
        let filled = |head: &[u8]| [head, &[0; 512]].concat();
        // A container by FFmpeg; the second one has audio only.
        let mp4 = |brands: &[u8]| filled(&[&ftyp(b"isom", brands)[..], &b"free\0\0\x10\0mdat"[..]].concat());
        let ebml =
            b"\x1a\x45\xdf\xa3\x01\0\0\0\0\0\0\x1f\x42\x86\x81\x01\x42\xf7\x81\x01\x42\xf2\x81\x04\x42\xf3\
            \x81\x08\x42\x82\x84webm\x42\x87\x81\x02\x42\x85\x81\x02\x18\x53\x80\x67";
        let matroska =
            b"\x1a\x45\xdf\xa3\xa3\x42\x86\x81\x01\x42\xf7\x81\x01\x42\xf2\x81\x04\x42\xf3\x81\x08\x42\x82\
            \x88matroska\x42\x87\x81\x04\x42\x85\x81\x02";
        let opus = b"OggS\0\x02\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x12\x34\x56\x78\x01\x13OpusHead\x01\x02";
        let exif = b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01\x01\x01\0\x48\0\x48\0\0\xff\xe1\0\x62Exif\0\0MM\0\x2a";
        let xlsx = [
            zip(&["[Content_Types].xml"]),
            vec![0xaa; 900],
            zip(&["_rels/.rels"]),
            vec![0xaa; 800],
            zip(&["xl/_rels/workbook.xml.rels"]),
        ];
        for (head, mime_type) in [
            (filled(b"RIFF\x64\x5b\0\0WEBPVP8X\x0a\0\0\0\x10\0\0\0\x8f\x01\0"), "image/webp"),
            (mp4(b"isomiso2avc1mp41"), "video/mp4"),
            (mp4(b"isomiso2mp41"), "video/mp4"),
            (filled(&ftyp(b"M4V ", b"M4V mp42isom")), "video/mp4"),
            (filled(b"\0\0\0\x14ftypqt  \0\0\0\0qt  \0\0\x0a\xbemoov\0\0\0\x6cmvhd"), "video/quicktime"),
            (filled(ebml), "video/webm"),
            (filled(matroska), "video/x-matroska"),
            (filled(opus), "audio/ogg"),
            (filled(exif), "image/jpeg"),
            (
                filled(b"%PDF-1.3\n%\xc4\xe5\xf2\xe5\xeb\xa7\xf3\xa0\xd0\xc4\xc6\n2 0 obj\n"),
                "application/pdf",
            ),
            (
                zip(&["word/media/image3.jpeg", "word/media/image2.png"]),
                "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
            ),
            (xlsx.concat(), "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
        ] {
            assert_eq!(sniff_media_type(&head).as_deref(), Some(mime_type), "{:?}", &head[..40]);
        }
    }

    #[test]
    fn text_in_older_encodings_is_text() {
        let utf16 = |text: &str, bom: &[u8], to_bytes: fn(u16) -> [u8; 2]| {
            [bom, &text.encode_utf16().flat_map(to_bytes).collect::<Vec<u8>>()].concat()
        };
        for text in [
            b"Gr\xfc\xdfe aus K\xf6ln; 5 \x80\r\n".to_vec(),
            b"nom;pr\xe9nom\r\nZo\xe9;Ren\xe9e\r\n".to_vec(),
            utf16("日本語のテキスト 🦀\n", b"\xff\xfe", u16::to_le_bytes),
            utf16("日本語のテキスト 🦀\n", b"\xfe\xff", u16::to_be_bytes),
            utf16("name;größe\r\n", b"", u16::to_le_bytes),
            utf16("name;größe\r\n", b"", u16::to_be_bytes),
        ] {
            assert_eq!(sniff_media_type(&text).as_deref(), Some("text/plain"), "{text:?}");
        }
        let svg = utf16("<?xml version=\"1.0\"?><svg/>", b"\xff\xfe", u16::to_le_bytes);
        assert_eq!(sniff_media_type(&svg).as_deref(), Some("image/svg+xml"));
        let cut = utf16("🦀🦀🦀", b"\xff\xfe", u16::to_le_bytes);
        assert_eq!(sniff_media_type(&cut[..cut.len() - 2]).as_deref(), Some("text/plain"));
    }

    #[test]
    fn binary_data_is_no_text() {
        for data in [
            b"\xff\xfe\x01\0\x02\0".to_vec(),
            b"\xff\xfe\0\xd8\0\xd8".to_vec(),
            b"abc\xe9\x01def".to_vec(),
            b"\xe4\xf6\xfc\xdf".to_vec(),
            vec![0; 64],
            b"a\0b\0\0\0c\0d\0".to_vec(),
        ] {
            assert_eq!(sniff_media_type(&data).as_deref(), None, "{data:?}");
        }
    }

    #[test]
    fn noise_and_empty_input_are_unknown() {
        assert_eq!(sniff_media_type(&[0, 159, 146, 150, 3, 1]).as_deref(), None);
        assert_eq!(sniff_media_type(b"").as_deref(), None);
    }
}
