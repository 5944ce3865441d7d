//! Metadata: keys with typed values, read where they lie in the file.

use super::types::Kind;

/// A value of the metadata, borrowed from the file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// A whole number, of whatever width and sign.
    Integer(i128),
    /// A number of 32 or 64 bits.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// UTF-8.
    Text(&'a str),
    /// Values of one type.
    Array(Array<'a>),
}

impl<'a> Value<'a> {
    /// The text, where it is one.
    pub fn text(self) -> Option<&'a str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The number, where it is a whole one that fits.
    pub fn index(self) -> Option<usize> {
        if let Self::Integer(n) = self { usize::try_from(n).ok() } else { None }
    }

    /// The array, where it is one.
    pub fn array(self) -> Option<Array<'a>> {
        if let Self::Array(array) = self { Some(array) } else { None }
    }
}

/// An array of the metadata. It is decoded as it is walked through, so a long one costs no memory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Array<'a> {
    kind: Kind,
    len: usize,
    bytes: &'a [u8],
}

impl<'a> Array<'a> {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The values, in order.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let (mut cursor, kind) = (Cursor::new(self.bytes), self.kind);
        (0..self.len).map_while(move |_| cursor.value_of(kind).ok())
    }
}

/// Reads a file from front to back; every error says what is wrong with the file.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// What was read, or what is wrong with the file.
pub(super) type Read<T> = Result<T, String>;

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes read so far.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    fn take(&mut self, n: usize) -> Read<&'a [u8]> {
        let end = self.at.checked_add(n).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or_else(|| {
            let left = self.bytes.len() - self.at;
            format!("it ends within its header: {n} bytes should follow, {left} do")
        })?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self) -> Read<[u8; N]> {
        let mut number = [0; N];
        number.copy_from_slice(self.take(N)?);
        Ok(number)
    }

    pub(super) fn u32(&mut self) -> Read<u32> {
        Ok(u32::from_le_bytes(self.number()?))
    }

    pub(super) fn u64(&mut self) -> Read<u64> {
        Ok(u64::from_le_bytes(self.number()?))
    }

    /// A length or an offset.
    pub(super) fn size(&mut self) -> Read<usize> {
        let n = self.u64()?;
        usize::try_from(n).map_err(|_| format!("a size of {n} is too large to be true"))
    }

    /// A text: its length in bytes, and those bytes.
    pub(super) fn text(&mut self) -> Read<&'a str> {
        let len = self.size()?;
        let bytes = self.take(len)?;
        std::str::from_utf8(bytes).map_err(|_| "it has a text that is not UTF-8".into())
    }

    /// A value after its type.
    pub(super) fn value(&mut self) -> Read<Value<'a>> {
        let kind = self.kind()?;
        self.value_of(kind)
    }

    fn kind(&mut self) -> Read<Kind> {
        let id = self.u32()?;
        Kind::new(id).ok_or_else(|| format!("there is no type of value {id}"))
    }

    fn value_of(&mut self, kind: Kind) -> Read<Value<'a>> {
        let integer = |n: i128| Value::Integer(n);
        Ok(match kind {
            Kind::U8 => integer(u8::from_le_bytes(self.number()?).into()),
            Kind::I8 => integer(i8::from_le_bytes(self.number()?).into()),
            Kind::U16 => integer(u16::from_le_bytes(self.number()?).into()),
            Kind::I16 => integer(i16::from_le_bytes(self.number()?).into()),
            Kind::U32 => integer(self.u32()?.into()),
            Kind::I32 => integer(i32::from_le_bytes(self.number()?).into()),
            Kind::U64 => integer(self.u64()?.into()),
            Kind::I64 => integer(i64::from_le_bytes(self.number()?).into()),
            Kind::F32 => Value::Float(f32::from_le_bytes(self.number()?).into()),
            Kind::F64 => Value::Float(f64::from_le_bytes(self.number()?)),
            Kind::Bool => match self.number::<1>()? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                [other] => return Err(format!("{other} is neither true (1) nor false (0)")),
            },
            Kind::Text => Value::Text(self.text()?),
            Kind::Array => Value::Array(self.array()?),
        })
    }

    /// Passes over an array, checking that all of it is there.
    fn array(&mut self) -> Read<Array<'a>> {
        let kind = self.kind()?;
        let len = self.size()?;
        let start = self.at;
        match kind.size() {
            Some(size) if kind != Kind::Bool => {
                let bytes = len.checked_mul(size);
                self.take(bytes.ok_or_else(|| format!("an array of {len} is too large"))?)?;
            }
            // Lengths come from outside, but no value is shorter than a byte: this loop ends.
            _ if kind != Kind::Array => {
                for _ in 0..len {
                    self.value_of(kind)?;
                }
            }
            _ => return Err("it has arrays within arrays, which nothing here uses".into()),
        }
        Ok(Array { kind, len, bytes: &self.bytes[start..self.at] })
    }
}
