//! Lines of a stream that is read piece by piece.

use state::MAX_LINE;

/// One stream's unfinished line.
#[derive(Debug, Default)]
pub(crate) struct Partial(Vec<u8>);

impl Partial {
    /// Takes the next bytes of the stream and gives each line with its end. One that is too long is
    /// given in parts, cut between characters, of which only the last has the end.
    pub(crate) fn cut(&mut self, mut bytes: &[u8], mut line: impl FnMut(&[u8])) {
        while !bytes.is_empty() {
            let room = MAX_LINE.saturating_sub(self.0.len());
            let window = bytes.get(..room).unwrap_or(bytes);
            let end = window.iter().position(|byte| *byte == b'\n');
            let (taken, rest) = bytes.split_at(end.map_or(window.len(), |at| at + 1));
            bytes = rest;
            if end.is_some() && self.0.is_empty() {
                line(taken);
                continue;
            }
            self.0.extend_from_slice(taken);
            if end.is_some() {
                line(&self.0);
                self.0.clear();
            } else if self.0.len() >= MAX_LINE {
                let whole = whole_characters(&self.0);
                line(self.0.get(..whole).unwrap_or_default());
                self.0.drain(..whole);
            }
        }
    }

    /// What is left at the end of the stream.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}

/// How many of the bytes are whole characters, as far as they are UTF-8 at all.
fn whole_characters(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        // An end in the middle of a character.
        Err(error) if error.error_len().is_none() && error.valid_up_to() > 0 => error.valid_up_to(),
        _ => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, Vec<u8>) {
        let mut partial = Partial::default();
        let mut lines = Vec::new();
        for piece in pieces {
            partial.cut(piece, |line| lines.push(line.to_vec()));
        }
        (lines, partial.take())
    }

    #[test]
    fn lines_over_several_pieces_are_joined() {
        let (lines, rest) = cut(&[b"one\ntw", b"o\n\nthr", b"ee"]);
        assert_eq!(lines, [&b"one\n"[..], b"two\n", b"\n"]);
        assert_eq!(rest, b"three");
    }

    #[test]
    fn long_line_is_cut_between_characters() {
        let mut text = "x".repeat(MAX_LINE - 1);
        text.push_str("ä\n");
        let (lines, rest) = cut(&[text.as_bytes()]);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].len(), MAX_LINE - 1);
        assert_eq!(lines[1], "ä\n".as_bytes());
        assert!(rest.is_empty());
        let (lines, _) = cut(&[&vec![0xff; MAX_LINE * 2 + 1]]);
        assert_eq!(lines.concat().len(), MAX_LINE * 2);
    }
}
