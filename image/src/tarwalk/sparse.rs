//! Sparse files: which parts of a file its stored bytes are (GNU tar manual, "Storing sparse
//! files": the old form, and PAX forms 0.0, 0.1 and 1.0).

use super::field::{decimal, number};
use super::pax::Records;

/// How many parts a sparse file may have.
pub(super) const MAX_SEGMENTS: usize = 1_000_000;

/// A part of a sparse file that has bytes in the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where in the file it is.
    pub offset: u64,
    /// How many bytes it has.
    pub length: u64,
}

/// Reads `offset`/`length` pairs of an old GNU header or of its extension block. Stops at the
/// first empty one.
pub(super) fn push_old(pairs: &[u8], segments: &mut Vec<Segment>) -> Result<(), &'static str> {
    for pair in pairs.chunks_exact(24) {
        let (offset, length) = pair.split_at(12);
        if offset.first() == Some(&0) {
            break;
        }
        let read = |field| number(field).and_then(|value| u64::try_from(value).ok());
        let (Some(offset), Some(length)) = (read(offset), read(length)) else {
            return Err("its sparse map is malformed");
        };
        push(segments, offset, length)?;
    }
    Ok(())
}

fn push(segments: &mut Vec<Segment>, offset: u64, length: u64) -> Result<(), &'static str> {
    if segments.len() >= MAX_SEGMENTS {
        return Err("its sparse map is too long");
    }
    segments.push(Segment { offset, length });
    Ok(())
}

/// What PAX records say about a sparse file.
pub(super) enum PaxMap {
    /// The file is not sparse.
    None,
    /// Forms 0.0 and 0.1: the map is in the records.
    Records(Vec<Segment>),
    /// Form 1.0: the map stands before the stored bytes.
    InBody,
}

/// Finds the sparse map of PAX records.
pub(super) fn pax_map(records: &Records) -> Result<PaxMap, &'static str> {
    match (
        records.get(b"GNU.sparse.major"),
        records.get(b"GNU.sparse.minor"),
    ) {
        (Some(b"1"), Some(b"0")) => return Ok(PaxMap::InBody),
        (None, None) | (Some(b"0"), Some(b"0" | b"1")) => {}
        _ => return Err("its sparse format is unknown"),
    }
    let malformed = "its sparse map is malformed";
    let mut segments = Vec::new();
    if let Some(map) = records.get(b"GNU.sparse.map") {
        let mut numbers = map.split(|byte| *byte == b',').map(decimal);
        while let Some(offset) = numbers.next() {
            let length = numbers.next().flatten();
            push(
                &mut segments,
                offset.ok_or(malformed)?,
                length.ok_or(malformed)?,
            )?;
        }
        return Ok(PaxMap::Records(segments));
    }
    let mut offset = None;
    for (key, value) in records.iter() {
        match key {
            b"GNU.sparse.offset" if offset.is_none() => {
                offset = Some(decimal(value).ok_or(malformed)?);
            }
            b"GNU.sparse.numbytes" => {
                let length = decimal(value).ok_or(malformed)?;
                push(&mut segments, offset.take().ok_or(malformed)?, length)?;
            }
            b"GNU.sparse.offset" => return Err(malformed),
            _ => {}
        }
    }
    let empty = segments.is_empty() && records.get(b"GNU.sparse.numblocks").is_none();
    Ok(if empty {
        PaxMap::None
    } else {
        PaxMap::Records(segments)
    })
}

/// Reads the map of form 1.0 from 512-byte blocks: decimal lines, first their number of pairs.
pub(super) struct BodyMap {
    expected: Option<u64>,
    numbers: Vec<u64>,
    line: Vec<u8>,
}

impl BodyMap {
    pub(super) fn new() -> Self {
        Self {
            expected: None,
            numbers: Vec::new(),
            line: Vec::new(),
        }
    }

    /// Takes a block; `true` when the map is complete (the rest of the block is padding).
    pub(super) fn take(&mut self, block: &[u8]) -> Result<bool, &'static str> {
        for byte in block {
            if self.is_complete() {
                break;
            }
            if *byte != b'\n' {
                self.line.push(*byte);
                if self.line.len() > 20 {
                    return Err("its sparse map is malformed");
                }
                continue;
            }
            let value = decimal(&self.line).ok_or("its sparse map is malformed")?;
            self.line.clear();
            match self.expected {
                None if value > MAX_SEGMENTS as u64 => return Err("its sparse map is too long"),
                None => self.expected = Some(value * 2),
                Some(_) => self.numbers.push(value),
            }
        }
        Ok(self.is_complete())
    }

    fn is_complete(&self) -> bool {
        self.expected == Some(self.numbers.len() as u64)
    }

    pub(super) fn segments(&self) -> Vec<Segment> {
        self.numbers
            .chunks_exact(2)
            .filter_map(|pair| match pair {
                [offset, length] => Some(Segment {
                    offset: *offset,
                    length: *length,
                }),
                _ => None,
            })
            .collect()
    }
}

/// Checks a map: ascending, inside the file, and as long as what is stored.
pub(super) fn check(segments: &[Segment], size: u64, stored: u64) -> Result<(), &'static str> {
    let mut end = 0_u64;
    let mut sum = 0_u64;
    for segment in segments {
        if segment.offset < end {
            return Err("its sparse map overlaps");
        }
        end = segment
            .offset
            .checked_add(segment.length)
            .ok_or("its sparse map is malformed")?;
        sum += segment.length;
    }
    if end > size {
        return Err("its sparse map is longer than the file");
    }
    if sum != stored {
        return Err("its sparse map does not fit the stored bytes");
    }
    Ok(())
}
