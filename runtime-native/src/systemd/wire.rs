//! D-Bus's format (D-Bus Specification 0.43, "Type System" and "Message Protocol"): values, and
//! messages of this machine's byte order, which is little-endian wherever this program runs.

use super::SystemdError;

/// No message that systemd sends us is longer.
const MAX_MESSAGE: usize = 1 << 20;

/// Values hold values no deeper.
const MAX_DEPTH: usize = 16;

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Byte(u8),
    Bool(bool),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    Double(f64),
    Text(String),
    Path(String),
    Signature(String),
    /// The signature of its elements, and these.
    Array(String, Vec<Self>),
    Struct(Vec<Self>),
    Variant(Box<Self>),
}

impl Value {
    pub(super) fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    pub(super) fn variant(value: Self) -> Self {
        Self::Variant(Box::new(value))
    }

    /// An array of bytes.
    pub(super) fn bytes(bytes: &[u8]) -> Self {
        Self::Array(
            "y".to_owned(),
            bytes.iter().copied().map(Self::Byte).collect(),
        )
    }

    /// A string or a path.
    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Path(text) | Self::Signature(text) => Some(text),
            _ => None,
        }
    }

    fn signature(&self) -> String {
        let letter = match self {
            Self::Byte(_) => "y",
            Self::Bool(_) => "b",
            Self::I16(_) => "n",
            Self::U16(_) => "q",
            Self::I32(_) => "i",
            Self::U32(_) => "u",
            Self::I64(_) => "x",
            Self::U64(_) => "t",
            Self::Double(_) => "d",
            Self::Text(_) => "s",
            Self::Path(_) => "o",
            Self::Signature(_) => "g",
            Self::Variant(_) => "v",
            Self::Array(element, _) => return format!("a{element}"),
            Self::Struct(fields) => return format!("({})", signature_of(fields)),
        };
        letter.to_owned()
    }
}

/// The signature of values after one another.
pub(super) fn signature_of(values: &[Value]) -> String {
    values.iter().map(Value::signature).collect()
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Call = 1,
    Return = 2,
    Error = 3,
    Signal = 4,
}

/// The fields of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Path = 1,
    Interface = 2,
    Member = 3,
    ErrorName = 4,
    ReplySerial = 5,
    Destination = 6,
    Signature = 8,
}

/// A message that was received.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Message {
    kind: u8,
    fields: Vec<Value>,
    body: Vec<u8>,
}

impl Message {
    pub(super) fn is(&self, kind: Kind) -> bool {
        self.kind == kind as u8
    }

    /// A field of the header.
    pub(super) fn field(&self, wanted: Field) -> Option<&Value> {
        self.fields.iter().find_map(|field| match field {
            Value::Struct(pair) => match pair.as_slice() {
                [Value::Byte(number), Value::Variant(value)] if *number == wanted as u8 => {
                    Some(&**value)
                }
                _ => None,
            },
            _ => None,
        })
    }

    /// The values of the body.
    pub(super) fn values(&self) -> Result<Vec<Value>, SystemdError> {
        let signature = self.field(Field::Signature).and_then(Value::as_text);
        let mut reader = Reader::new(&self.body);
        reader.all(signature.unwrap_or_default(), 0)
    }
}

/// A message to be sent: `fields` without the signature.
pub(super) fn encode(
    kind: Kind,
    serial: u32,
    fields: &[(Field, Value)],
    body: &[Value],
) -> Vec<u8> {
    let mut content = Writer::default();
    for value in body {
        content.put(value);
    }
    let mut header: Vec<Value> = Vec::new();
    let mut add = |field: Field, value: Value| {
        header.push(Value::Struct(vec![
            Value::Byte(field as u8),
            Value::variant(value),
        ]));
    };
    for (field, value) in fields {
        add(*field, value.clone());
    }
    if !body.is_empty() {
        add(Field::Signature, Value::Signature(signature_of(body)));
    }
    // No flags; version 1 of the protocol.
    let mut message = Writer {
        bytes: vec![b'l', kind as u8, 0, 1],
    };
    message.put(&Value::U32(length(content.bytes.len())));
    message.put(&Value::U32(serial));
    message.put(&Value::Array("(yv)".to_owned(), header));
    message.align(8);
    message.bytes.extend(content.bytes);
    message.bytes
}

/// How many bytes a message has whose first [`PREFIX`] are these.
pub(super) fn total_length(prefix: &[u8]) -> Result<usize, SystemdError> {
    if prefix.first() != Some(&b'l') {
        return Err(SystemdError::Malformed("a message of another byte order"));
    }
    let number = |at: usize| {
        let bytes = prefix.get(at..at + 4)?;
        usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
    };
    let (body, fields) = number(4)
        .zip(number(12))
        .ok_or(SystemdError::Malformed("half a message"))?;
    let total = PREFIX.saturating_add(fields).next_multiple_of(8);
    let total = total.saturating_add(body);
    match total <= MAX_MESSAGE && fields <= MAX_MESSAGE {
        true => Ok(total),
        false => Err(SystemdError::Malformed("a message that is too long")),
    }
}

/// The length of the fixed part of a header, the length of its fields included.
pub(super) const PREFIX: usize = 16;

/// Reads a whole message.
pub(super) fn decode(bytes: &[u8]) -> Result<Message, SystemdError> {
    let mut reader = Reader::new(bytes);
    let [_order, kind, _flags, _version] = *reader.take(4)? else {
        return Err(SystemdError::Malformed("half a message"));
    };
    reader.take(8)?;
    let fields = reader.one("a(yv)", 0)?;
    reader.align(8)?;
    let Value::Array(_, fields) = fields else {
        return Err(SystemdError::Malformed("a header without fields"));
    };
    Ok(Message {
        kind,
        fields,
        body: bytes.get(reader.at..).unwrap_or_default().to_vec(),
    })
}

/// Lengths are below [`MAX_MESSAGE`] or the bus refuses them.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[derive(Debug, Default)]
struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    fn number<const N: usize>(&mut self, bytes: [u8; N]) {
        self.align(N);
        self.bytes.extend(bytes);
    }

    fn put(&mut self, value: &Value) {
        match value {
            Value::Byte(value) => self.bytes.push(*value),
            Value::Bool(value) => self.number(u32::from(*value).to_le_bytes()),
            Value::I16(value) => self.number(value.to_le_bytes()),
            Value::U16(value) => self.number(value.to_le_bytes()),
            Value::I32(value) => self.number(value.to_le_bytes()),
            Value::U32(value) => self.number(value.to_le_bytes()),
            Value::I64(value) => self.number(value.to_le_bytes()),
            Value::U64(value) => self.number(value.to_le_bytes()),
            Value::Double(value) => self.number(value.to_le_bytes()),
            Value::Text(text) | Value::Path(text) => {
                self.number(length(text.len()).to_le_bytes());
                self.bytes.extend(text.as_bytes());
                self.bytes.push(0);
            }
            Value::Signature(text) => {
                // Of types that this program writes: far below 256.
                self.bytes.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
                self.bytes.extend(text.as_bytes());
                self.bytes.push(0);
            }
            Value::Array(element, items) => {
                self.number(0_u32.to_le_bytes());
                let at = self.bytes.len();
                // Also before no element at all.
                self.align(alignment(element));
                let begin = self.bytes.len();
                for item in items {
                    self.put(item);
                }
                let size = length(self.bytes.len() - begin).to_le_bytes();
                if let Some(place) = self.bytes.get_mut(at - 4..at) {
                    place.copy_from_slice(&size);
                }
            }
            Value::Struct(fields) => {
                self.align(8);
                for field in fields {
                    self.put(field);
                }
            }
            Value::Variant(value) => {
                self.put(&Value::Signature(value.signature()));
                self.put(value);
            }
        }
    }
}

/// Where values of a type begin.
fn alignment(signature: &str) -> usize {
    match signature.bytes().next() {
        Some(b'n' | b'q') => 2,
        Some(b'b' | b'i' | b'u' | b's' | b'o' | b'a') => 4,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        _ => 1,
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

const SHORT: SystemdError = SystemdError::Malformed("a message that ends too early");
const UNKNOWN: SystemdError = SystemdError::Malformed("a value of an unknown type");

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], SystemdError> {
        let end = self.at.checked_add(length).ok_or(SHORT)?;
        let taken = self.bytes.get(self.at..end).ok_or(SHORT)?;
        self.at = end;
        Ok(taken)
    }

    fn align(&mut self, to: usize) -> Result<(), SystemdError> {
        let padding = self.at.next_multiple_of(to) - self.at;
        self.take(padding).map(drop)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], SystemdError> {
        self.align(N)?;
        self.take(N)?.try_into().map_err(|_| SHORT)
    }

    fn length(&mut self) -> Result<usize, SystemdError> {
        usize::try_from(u32::from_le_bytes(self.number()?)).map_err(|_| SHORT)
    }

    /// Text of so many bytes, and the zero after it.
    fn text(&mut self, length: usize) -> Result<String, SystemdError> {
        let text = self.take(length)?.to_vec();
        self.take(1)?;
        String::from_utf8(text).map_err(|_| SystemdError::Malformed("text that is not UTF-8"))
    }

    /// One value of each type in `signature`.
    fn all(&mut self, mut signature: &str, depth: usize) -> Result<Vec<Value>, SystemdError> {
        let mut values = Vec::new();
        while !signature.is_empty() {
            let (first, rest) = signature.split_at(first_type(signature).ok_or(UNKNOWN)?);
            values.push(self.one(first, depth)?);
            signature = rest;
        }
        Ok(values)
    }

    /// One value of the type `signature`.
    fn one(&mut self, signature: &str, depth: usize) -> Result<Value, SystemdError> {
        if depth > MAX_DEPTH {
            return Err(SystemdError::Malformed("a value that is too deep"));
        }
        let inner = signature.get(1..).unwrap_or_default();
        Ok(match signature.bytes().next() {
            Some(b'y') => Value::Byte(u8::from_le_bytes(self.number()?)),
            Some(b'b') => Value::Bool(u32::from_le_bytes(self.number()?) != 0),
            Some(b'n') => Value::I16(i16::from_le_bytes(self.number()?)),
            Some(b'q') => Value::U16(u16::from_le_bytes(self.number()?)),
            Some(b'i') => Value::I32(i32::from_le_bytes(self.number()?)),
            Some(b'u') => Value::U32(u32::from_le_bytes(self.number()?)),
            Some(b'x') => Value::I64(i64::from_le_bytes(self.number()?)),
            Some(b't') => Value::U64(u64::from_le_bytes(self.number()?)),
            Some(b'd') => Value::Double(f64::from_le_bytes(self.number()?)),
            Some(b's') => {
                let length = self.length()?;
                Value::Text(self.text(length)?)
            }
            Some(b'o') => {
                let length = self.length()?;
                Value::Path(self.text(length)?)
            }
            Some(b'g') => Value::Signature(self.signature()?),
            Some(b'v') => {
                let of = self.signature()?;
                // Exactly one type.
                if first_type(&of) != Some(of.len()) {
                    return Err(UNKNOWN);
                }
                Value::variant(self.one(&of, depth + 1)?)
            }
            Some(b'a') => self.array(inner, depth)?,
            Some(b'(' | b'{') => {
                self.align(8)?;
                let fields = inner.get(..inner.len() - 1).unwrap_or_default();
                Value::Struct(self.all(fields, depth + 1)?)
            }
            _ => return Err(UNKNOWN),
        })
    }

    fn signature(&mut self) -> Result<String, SystemdError> {
        let length = usize::from(u8::from_le_bytes(self.number()?));
        self.text(length)
    }

    fn array(&mut self, element: &str, depth: usize) -> Result<Value, SystemdError> {
        let length = self.length()?;
        self.align(alignment(element))?;
        let end = self.at.checked_add(length).ok_or(SHORT)?;
        if end > self.bytes.len() {
            return Err(SHORT);
        }
        let mut items = Vec::new();
        while self.at < end {
            items.push(self.one(element, depth + 1)?);
        }
        match self.at == end {
            true => Ok(Value::Array(element.to_owned(), items)),
            false => Err(SystemdError::Malformed("an array of another length")),
        }
    }
}

/// The length of the first complete type of a signature.
fn first_type(signature: &str) -> Option<usize> {
    let mut open = 0_usize;
    for (at, letter) in signature.bytes().enumerate() {
        match letter {
            b'a' => continue,
            b'(' | b'{' => open += 1,
            b')' | b'}' => open = open.checked_sub(1)?,
            b'y' | b'b' | b'n' | b'q' | b'i' | b'u' | b'x' | b't' | b'd' | b's' | b'o' | b'g'
            | b'v' => {}
            _ => return None,
        }
        if open == 0 {
            return Some(at + 1);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_type() -> Vec<Value> {
        vec![
            Value::Byte(1),
            Value::Bool(true),
            Value::I16(-2),
            Value::U16(2),
            Value::I32(-3),
            Value::U32(3),
            Value::I64(-4),
            Value::U64(u64::MAX),
            Value::Double(0.5),
            Value::text("ä"),
            Value::Path("/a".to_owned()),
            Value::Signature("a(sv)".to_owned()),
            Value::bytes(&[1, 2]),
            Value::Array("(sa(sv))".to_owned(), Vec::new()),
            Value::Struct(vec![Value::Byte(9), Value::variant(Value::text("in"))]),
        ]
    }

    #[test]
    fn message_that_was_encoded_is_read_back() {
        let fields = [(Field::Member, Value::text("Hello"))];
        let bytes = encode(Kind::Signal, 7, &fields, &every_type());
        assert_eq!(total_length(&bytes[..PREFIX]).unwrap(), bytes.len());
        let message = decode(&bytes).unwrap();
        assert!(message.is(Kind::Signal));
        assert_eq!(
            message.field(Field::Member).unwrap().as_text(),
            Some("Hello")
        );
        assert_eq!(message.values().unwrap(), every_type());
    }

    /// Every byte counted by hand: fields begin at multiples of 8, the array's length is that of its
    /// elements without the padding after the last.
    #[test]
    fn call_without_arguments_has_the_bytes_of_the_specification() {
        let bytes = encode(
            Kind::Call,
            1,
            &[
                (Field::Path, Value::Path("/".to_owned())),
                (Field::Member, Value::text("Hi")),
            ],
            &[],
        );
        let expected = b"l\x01\0\x01\0\0\0\0\x01\0\0\0\x1b\0\0\0\
            \x01\x01o\0\x01\0\0\0/\0\0\0\0\0\0\0\
            \x03\x01s\0\x02\0\0\0Hi\0\0\0\0\0\0";
        assert_eq!(bytes, expected);
    }

    #[test]
    fn bytes_that_are_no_message_are_refused() {
        let whole = encode(Kind::Return, 1, &[], &every_type());
        for end in 0..whole.len() {
            let cut = decode(&whole[..end]).and_then(|message| message.values());
            assert!(cut.is_err(), "{end}");
        }
        let mut other = whole;
        other[0] = b'B';
        assert!(total_length(&other).is_err());
        let mut long = *b"l\x01\0\x01\0\0\0\0\x01\0\0\0\0\0\0\0";
        long[6] = 0xff;
        assert!(total_length(&long).is_err());
        // A variant in a variant in a variant.
        let deep = (0..40).fold(Value::Byte(1), |value, _| Value::variant(value));
        let deep = decode(&encode(Kind::Return, 1, &[], &[deep])).unwrap();
        assert!(deep.values().is_err());
    }

    #[test]
    fn signature_is_taken_apart_type_by_type() {
        assert_eq!(first_type("a(sv)u"), Some(5));
        assert_eq!(first_type("aay"), Some(3));
        for bad in ["", "a", "(s", ")", "z", "a)"] {
            assert_eq!(first_type(bad), None, "{bad}");
        }
    }
}
