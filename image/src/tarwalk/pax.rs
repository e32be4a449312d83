//! PAX extended headers: `<length> <key>=<value>\n`, as many as fit.

use super::field::decimal;

/// The records of one extended header, in order. A later record of a key counts.
#[derive(Debug, Default)]
pub(super) struct Records(Vec<(Vec<u8>, Vec<u8>)>);

impl Records {
    /// Parses a whole extended header.
    pub(super) fn parse(mut bytes: &[u8]) -> Option<Self> {
        let mut records = Vec::new();
        while !bytes.is_empty() {
            let (record, rest) = split_record(bytes)?;
            records.push(record);
            bytes = rest;
        }
        Some(Self(records))
    }

    /// The value that counts for `key`. An empty value takes the key back.
    pub(super) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.0
            .iter()
            .rev()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value.as_slice())
            .filter(|value| !value.is_empty())
    }

    /// All records, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0
            .iter()
            .map(|(key, value)| (key.as_slice(), value.as_slice()))
    }
}

type Record = (Vec<u8>, Vec<u8>);

fn split_record(bytes: &[u8]) -> Option<(Record, &[u8])> {
    let blank = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let length = usize::try_from(decimal(bytes.get(..blank)?)?).ok()?;
    let record = bytes.get(blank + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (record.get(..equals)?, record.get(equals + 1..)?);
    let is_text = matches!(key, b"path" | b"linkpath" | b"uname" | b"gname");
    if key.is_empty() || key.contains(&0) || (is_text && value.contains(&0)) {
        return None;
    }
    Some(((key.to_vec(), value.to_vec()), bytes.get(length..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_takes_the_last_record_of_a_key() {
        let records = Records::parse(b"8 a=one\n8 a=two\n9 b=x=\ny\n5 c=\n").unwrap();
        assert_eq!(records.get(b"a"), Some(&b"two"[..]));
        assert_eq!(records.get(b"b"), Some(&b"x=\ny"[..]));
        assert_eq!(records.get(b"c"), None);
    }

    #[test]
    fn parse_malformed_is_none() {
        for bad in [
            &b"7 a=one\n"[..],
            b"9 a=one\n",
            b"8 a=one ",
            b"x a=one\n",
            b"8 a one\n",
            b"6 =one\n",
            b"99999999999999999999 a=b\n",
            b"0 a=b\n",
            b"12 path=a\0bc\n",
        ] {
            assert!(Records::parse(bad).is_none(), "{bad:?}");
        }
    }
}
