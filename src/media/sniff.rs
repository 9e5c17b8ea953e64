//! Recognises a media type from a file's first bytes.

/// How many of the first bytes are looked at. Every signature that matters lies within; office files name their kind in
/// the first entries of the archive.
pub const SNIFF_BYTES_MAX: usize = 8 * 1024;

/// The media type that the first bytes show, or nothing where they could be anything.
pub fn sniff(head: &[u8]) -> Option<String> {
    if head.is_empty() {
        return None;
    }
    // Both look for signatures; the first knows office files and media containers by their inside, the second is wider.
    if let Some(kind) = infer::get(head) {
        return Some(kind.mime_type().to_owned());
    }
    let format = file_format::FileFormat::from_bytes(head);
    match format.media_type() {
        "application/octet-stream" => looks_like_text(head).then(|| "text/plain".to_owned()),
        known => Some(known.to_owned()),
    }
}

/// Text has no NUL and is UTF-8 up to a cut character at the end.
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
    fn signatures_are_recognised() {
        assert_eq!(sniff(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR").as_deref(), Some("image/png"));
        assert_eq!(sniff(b"%PDF-1.7\n").as_deref(), Some("application/pdf"));
        assert_eq!(sniff(b"\xff\xd8\xff\xe0\0\x10JFIF").as_deref(), Some("image/jpeg"));
    }

    #[test]
    fn text_of_any_language_is_text() {
        assert_eq!(sniff("Grüße, 世界".as_bytes()).as_deref(), Some("text/plain"));
        let cut_in_a_character = &"日本".as_bytes()[..4];
        assert_eq!(sniff(cut_in_a_character).as_deref(), Some("text/plain"));
    }

    #[test]
    fn noise_and_nothing_are_unknown() {
        assert_eq!(sniff(&[0, 159, 146, 150, 3, 1]).as_deref(), None);
        assert_eq!(sniff(b"").as_deref(), None);
    }

    #[test]
    fn the_samples_are_what_their_names_say() {
        let folder = std::path::Path::new("../shared/samples");
        // Equivalents for machines that lack the samples stand above.
        for (name, family) in [
            ("report.pdf", "application/pdf"),
            ("clip.webm", "video/webm"),
            ("alpha_lossy.webp", "image/webp"),
        ] {
            let Ok(bytes) = std::fs::read(folder.join(name)) else { continue };
            assert_eq!(sniff(&bytes[..bytes.len().min(SNIFF_BYTES_MAX)]).as_deref(), Some(family), "{name}");
        }
    }
}
