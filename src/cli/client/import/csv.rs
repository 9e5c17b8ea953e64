//! Reads CSV records as defined by RFC 4180: quoted fields may contain commas, line breaks and doubled
//! quotes.

use std::io::BufRead;

/// The largest record. Without a limit, an unclosed quote would read the whole file into memory.
const RECORD_SIZE_BYTES_MAX: usize = 1024 * 1024;

pub(super) struct CsvReader<R> {
    reader: R,
    line: usize,
}

/// A record and the number of its first line, starting at 1.
pub(super) struct CsvRecord {
    pub(super) line: usize,
    pub(super) fields: Vec<String>,
}

impl<R: BufRead> CsvReader<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, line: 0 }
    }

    /// Reads the next record, skipping empty lines. Returns `None` at the end of the file.
    ///
    /// # Errors
    /// Returns the number of the line and the problem if a record is malformed.
    pub(super) fn read_record(&mut self) -> Result<Option<CsvRecord>, (usize, String)> {
        loop {
            let line = self.line + 1;
            let Some(text) = self.read_text().map_err(|problem| (line, problem))? else { return Ok(None) };
            let text = if line == 1 { text.trim_start_matches('\u{feff}') } else { &text };
            let text = text.strip_suffix('\n').unwrap_or(text);
            let text = text.strip_suffix('\r').unwrap_or(text);
            if !text.is_empty() {
                let fields = parse_fields(text).map_err(|problem| (line, problem.to_owned()))?;
                return Ok(Some(CsvRecord { line, fields }));
            }
        }
    }

    /// Reads lines until all quotes are closed.
    fn read_text(&mut self) -> Result<Option<String>, String> {
        let (mut bytes, mut is_open) = (Vec::new(), false);
        loop {
            let read = self.reader.read_until(b'\n', &mut bytes).map_err(|error| error.to_string())?;
            let quotes = bytes[bytes.len() - read..].iter().filter(|byte| **byte == b'"').count();
            is_open ^= quotes % 2 == 1;
            self.line += usize::from(read > 0);
            match read {
                0 if bytes.is_empty() => return Ok(None),
                0 if is_open => return Err("a quote is not closed".to_owned()),
                _ if bytes.len() > RECORD_SIZE_BYTES_MAX => return Err("the record exceeds 1 MiB".to_owned()),
                _ if read == 0 || !is_open => break,
                _ => {}
            }
        }
        String::from_utf8(bytes).map(Some).map_err(|_| "the record is not UTF-8".to_owned())
    }
}

fn parse_fields(record: &str) -> Result<Vec<String>, &'static str> {
    let mut fields = Vec::new();
    let mut rest = record;
    loop {
        let (field, tail) = match rest.strip_prefix('"') {
            Some(quoted) => parse_quoted_field(quoted)?,
            None => {
                let (field, tail) =
                    rest.split_once(',').map_or((rest, None), |(field, tail)| (field, Some(tail)));
                if field.contains('"') {
                    return Err("an unquoted field contains a quote; quote the field and double the quote");
                }
                (field.to_owned(), tail)
            }
        };
        fields.push(field);
        match tail {
            Some(tail) => rest = tail,
            None => return Ok(fields),
        }
    }
}

/// Parses a quoted field without its opening quote. Returns the field and the text after the next comma, if
/// there is one.
fn parse_quoted_field(mut rest: &str) -> Result<(String, Option<&str>), &'static str> {
    let mut field = String::new();
    loop {
        let (piece, tail) = rest.split_once('"').ok_or("a quote is not closed")?;
        field.push_str(piece);
        match tail.chars().next() {
            Some('"') => {
                field.push('"');
                rest = &tail[1..];
            }
            Some(',') => return Ok((field, Some(&tail[1..]))),
            Some(_) => return Err("text follows the closing quote of a field"),
            None => return Ok((field, None)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type NumberedRecords = Vec<(usize, Vec<String>)>;

    fn read_all(text: &str) -> Result<NumberedRecords, (usize, String)> {
        let mut reader = CsvReader::new(text.as_bytes());
        let mut all = Vec::new();
        while let Some(CsvRecord { line, fields }) = reader.read_record()? {
            all.push((line, fields));
        }
        Ok(all)
    }

    #[test]
    fn reads_csv_written_by_spreadsheets() {
        let text = "\u{feff}key,\"legacy_id\"\r\n\"a, \"\"b\"\"\nc\",7\r\n\r\nd,\n,";
        let expected = [(1, ["key", "legacy_id"]), (2, ["a, \"b\"\nc", "7"]), (5, ["d", ""]), (6, ["", ""])];
        let expected: Vec<_> =
            expected.map(|(line, fields)| (line, fields.map(str::to_owned).to_vec())).into();
        assert_eq!(read_all(text).unwrap(), expected);
    }

    #[test]
    fn malformed_record_is_reported_with_its_line() {
        assert_eq!(read_all("a\n\"b\nc").unwrap_err().0, 2);
        assert_eq!(read_all("a\nb\n\"c\"d").unwrap_err().0, 3);
        assert_eq!(read_all("a\n5\" pipe,\"x\"").unwrap_err().0, 2);
        assert_eq!(read_all("a\n5\" a.pdf\nplain.pdf\n6\" b.pdf\n").unwrap_err().0, 2);
        let endless = format!("a\n\"{}", "b\n".repeat(RECORD_SIZE_BYTES_MAX));
        assert_eq!(read_all(&endless).unwrap_err(), (2, "the record exceeds 1 MiB".to_owned()));
        let mut not_utf8 = CsvReader::new(&b"a\n\xff\n"[..]);
        assert!(not_utf8.read_record().is_ok());
        assert_eq!(not_utf8.read_record().err().unwrap().0, 2);
    }
}
