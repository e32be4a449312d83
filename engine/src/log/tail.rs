//! The last lines of a log: found from its end, whatever its length.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use state::{LogForm, Segment};

use super::reader::LogReader;

/// How much is looked at first.
const BLOCK: u64 = 64 * 1024;

/// Counts lines from the last to the first.
#[derive(Clone, Copy)]
struct Count {
    wanted: usize,
    seen: usize,
}

impl Count {
    /// A record comes before those that were counted: whether it is one too many.
    fn is_full_before(&mut self, bytes: &[u8]) -> bool {
        let ends_line = bytes.ends_with(b"\n");
        if ends_line || self.seen == 0 {
            if self.seen == self.wanted {
                return true;
            }
            self.seen += 1;
        }
        false
    }
}

impl LogReader {
    /// Goes to where the last `lines` lines begin. A line that fills several records is one.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn tail(&mut self, lines: usize) -> io::Result<()> {
        let mut count = Count {
            wanted: lines,
            seen: 0,
        };
        let segments = self.files.segments.list()?;
        for segment in segments.iter().rev() {
            let before = count;
            let found = match File::open(self.files.segments.file(segment.number)) {
                Ok(file) => backwards(&file, self.form, &mut count),
                Err(error) => Err(error),
            };
            let start = match found {
                Ok(start) => start,
                // Compressed, or damaged at its end.
                Err(_) => {
                    count = before;
                    self.forwards(*segment, &mut count)?
                }
            };
            if let Some(offset) = start {
                return self.files.seek(*segment, offset);
            }
        }
        Ok(())
    }

    /// A compressed file can only be read from its beginning.
    fn forwards(&self, segment: Segment, count: &mut Count) -> io::Result<Option<u64>> {
        let mut bytes = Vec::new();
        match self.files.open(segment) {
            Ok(mut source) => source.read_to_end(&mut bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(last_records(&bytes, self.form, count).map(|offset| offset as u64))
    }
}

/// Where the records begin that are wanted of `bytes`; `None` when all of them are.
fn last_records(bytes: &[u8], form: LogForm, count: &mut Count) -> Option<usize> {
    let mut records = Vec::new();
    let mut at = 0;
    while let Some((record, length)) = form.decode(bytes.get(at..)?) {
        at += length;
        let bytes = record.map(|record| record.bytes.ends_with(b"\n"));
        records.push((at, bytes.unwrap_or(true)));
    }
    let is_full = |(_, ends_line): &&(usize, bool)| {
        count.is_full_before(if *ends_line { b"\n" } else { b"" })
    };
    records.iter().rev().find(is_full).map(|(end, _)| *end)
}

/// The same for a file, read block by block from its end.
fn backwards(file: &File, form: LogForm, count: &mut Count) -> io::Result<Option<u64>> {
    let mut end = file.metadata()?.len();
    if form == LogForm::JsonFile {
        end = end_of_last_line(file, end)?;
    }
    let mut size = BLOCK;
    while end > 0 {
        let start = end.saturating_sub(size);
        let mut block = vec![0; usize::try_from(end - start).unwrap_or(0)];
        file.read_exact_at(&mut block, start)?;
        let mut rest = block.as_slice();
        while !rest.is_empty() {
            let length = match form.last_length(rest) {
                Some(length) => length,
                None if start == 0 => rest.len(),
                None => break,
            };
            let (before, record) = rest.split_at(rest.len() - length);
            let bytes = form.decode(record).and_then(|(record, _)| record);
            let bytes = bytes.map_or_else(|| vec![b'\n'], |record| record.bytes);
            if count.is_full_before(&bytes) {
                return Ok(Some(start + rest.len() as u64));
            }
            rest = before;
        }
        let left = rest.len() as u64;
        if left == end - start {
            // No record is as long as this block can become: the file is damaged there.
            if start == 0 || size > 16 * BLOCK {
                return Err(io::ErrorKind::InvalidData.into());
            }
            size *= 2;
        }
        end = start + left;
    }
    Ok(None)
}

/// The newest line may be half written.
fn end_of_last_line(file: &File, length: u64) -> io::Result<u64> {
    let start = length.saturating_sub(4 * BLOCK);
    let mut block = vec![0; usize::try_from(length - start).unwrap_or(0)];
    file.read_exact_at(&mut block, start)?;
    let end = block.iter().rposition(|byte| *byte == b'\n');
    Ok(end.map_or(start, |at| start + at as u64 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// The lines that a tail of `wanted` begins with.
    fn tail(form: LogForm, lines: &[&str], wanted: usize) -> Vec<Vec<u8>> {
        let mut bytes = Vec::new();
        for line in lines {
            form.encode(&mut bytes, false, line.as_bytes(), b"");
        }
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let count = || Count { wanted, seen: 0 };
        let offset = backwards(&file, form, &mut count()).unwrap().unwrap_or(0);
        let other = last_records(&bytes, form, &mut count()).unwrap_or(0);
        assert_eq!(offset, other as u64);
        let mut rest = &bytes[other..];
        let mut found = Vec::new();
        while let Some((record, length)) = form.decode(rest) {
            found.push(record.unwrap().bytes);
            rest = &rest[length..];
        }
        found
    }

    #[test]
    fn last_lines_are_found_also_where_one_fills_several_records() {
        let long = "x".repeat(state::MAX_LINE);
        let lines = [
            "a\n", "b\n", &long, &long, &long, &long, &long, "end\n", "c\n",
        ];
        for form in [LogForm::JsonFile, LogForm::Local] {
            assert_eq!(tail(form, &lines, 0), Vec::<Vec<u8>>::new());
            assert_eq!(tail(form, &lines, 1), [b"c\n"]);
            assert_eq!(tail(form, &lines, 2).len(), 7);
            assert_eq!(tail(form, &lines, 3).len(), 8);
            assert_eq!(tail(form, &lines, 9).len(), 9);
        }
    }

    #[test]
    fn unfinished_last_line_counts() {
        for form in [LogForm::JsonFile, LogForm::Local] {
            assert_eq!(tail(form, &["a\n", "b\n", "c"], 1), [b"c"]);
            assert_eq!(tail(form, &["a\n", "b\n", "c"], 2).len(), 2);
        }
    }
}
