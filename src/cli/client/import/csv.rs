//! Records of a CSV file, as RFC 4180 has them: fields in quotes may hold commas, line breaks and doubled quotes.

use std::io::BufRead;

/// More than any record that means something has: a quote that is never closed must not read the whole file.
const RECORD_SIZE_BYTES_MAX: usize = 1024 * 1024;

/// Reads record after record.
pub(super) struct Records<R> {
    reader: R,
    line: usize,
}

/// A record, and the line that it begins on, counted from 1.
pub(super) struct Record {
    pub(super) line: usize,
    pub(super) fields: Vec<String>,
}

impl<R: BufRead> Records<R> {
    pub(super) fn of(reader: R) -> Self {
        Self { reader, line: 0 }
    }

    /// The next record, until there is none; with the line that cannot be read. Empty lines are passed over.
    pub(super) fn next(&mut self) -> Result<Option<Record>, (usize, String)> {
        loop {
            let line = self.line + 1;
            let Some(text) = self.text().map_err(|wrong| (line, wrong))? else { return Ok(None) };
            let text = if line == 1 { text.trim_start_matches('\u{feff}') } else { &text };
            let text = text.strip_suffix('\n').unwrap_or(text);
            let text = text.strip_suffix('\r').unwrap_or(text);
            if !text.is_empty() {
                let fields = fields(text).map_err(|wrong| (line, wrong.to_owned()))?;
                return Ok(Some(Record { line, fields }));
            }
        }
    }

    /// Lines, until every quote has its other one.
    fn text(&mut self) -> Result<Option<String>, String> {
        let (mut bytes, mut is_open) = (Vec::new(), false);
        loop {
            let read = self.reader.read_until(b'\n', &mut bytes).map_err(|error| error.to_string())?;
            let quotes = bytes[bytes.len() - read..].iter().filter(|byte| **byte == b'"').count();
            is_open ^= quotes % 2 == 1;
            self.line += usize::from(read > 0);
            match read {
                0 if bytes.is_empty() => return Ok(None),
                0 if is_open => return Err("a quote is opened and not closed".to_owned()),
                _ if bytes.len() > RECORD_SIZE_BYTES_MAX => return Err("has more than 1 MiB".to_owned()),
                _ if read == 0 || !is_open => break,
                _ => {}
            }
        }
        String::from_utf8(bytes).map(Some).map_err(|_| "is not UTF-8".to_owned())
    }
}

fn fields(record: &str) -> Result<Vec<String>, &'static str> {
    let mut fields = Vec::new();
    let mut rest = record;
    loop {
        let (field, behind) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => {
                let (field, behind) =
                    rest.split_once(',').map_or((rest, None), |(field, behind)| (field, Some(behind)));
                if field.contains('"') {
                    return Err(
                        "a quote stands in a field that is not in quotes: write it in quotes, and the quote twice",
                    );
                }
                (field.to_owned(), behind)
            }
        };
        fields.push(field);
        match behind {
            Some(behind) => rest = behind,
            None => return Ok(fields),
        }
    }
}

/// A field whose first quote is gone, and what follows the comma behind its last.
fn quoted_field(mut rest: &str) -> Result<(String, Option<&str>), &'static str> {
    let mut field = String::new();
    loop {
        let (piece, behind) = rest.split_once('"').ok_or("a quote is opened and not closed")?;
        field.push_str(piece);
        match behind.chars().next() {
            Some('"') => {
                field.push('"');
                rest = &behind[1..];
            }
            Some(',') => return Ok((field, Some(&behind[1..]))),
            Some(_) => return Err("something stands behind the quote that ends a field"),
            None => return Ok((field, None)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Read = Vec<(usize, Vec<String>)>;

    fn read(text: &str) -> Result<Read, (usize, String)> {
        let mut records = Records::of(text.as_bytes());
        let mut all = Vec::new();
        while let Some(Record { line, fields }) = records.next()? {
            all.push((line, fields));
        }
        Ok(all)
    }

    #[test]
    fn fields_are_read_as_spreadsheets_write_them() {
        let text = "\u{feff}key,\"legacy_id\"\r\n\"a, \"\"b\"\"\nc\",7\r\n\r\nd,\n,";
        let expected = [(1, ["key", "legacy_id"]), (2, ["a, \"b\"\nc", "7"]), (5, ["d", ""]), (6, ["", ""])];
        let expected: Vec<_> =
            expected.map(|(line, fields)| (line, fields.map(str::to_owned).to_vec())).into();
        assert_eq!(read(text).unwrap(), expected);
    }

    #[test]
    fn what_is_no_record_is_refused_with_its_line() {
        assert_eq!(read("a\n\"b\nc").unwrap_err().0, 2);
        assert_eq!(read("a\nb\n\"c\"d").unwrap_err().0, 3);
        assert_eq!(read("a\n5\" pipe,\"x\"").unwrap_err().0, 2);
        assert_eq!(read("a\n5\" a.pdf\nplain.pdf\n6\" b.pdf\n").unwrap_err().0, 2);
        let endless = format!("a\n\"{}", "b\n".repeat(RECORD_SIZE_BYTES_MAX));
        assert_eq!(read(&endless).unwrap_err(), (2, "has more than 1 MiB".to_owned()));
        let mut not_text = Records::of(&b"a\n\xff\n"[..]);
        assert!(not_text.next().is_ok());
        assert_eq!(not_text.next().err().unwrap().0, 2);
    }
}
