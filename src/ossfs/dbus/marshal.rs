//! Messages as they are written (D-Bus specification, "Message Protocol" and "Marshaling").

use anyhow::{Context as _, Result};

/// The object of systemd's manager.
const OBJECT: &str = "/org/freedesktop/systemd1";
/// Types of messages.
pub(super) const CALL: u8 = 1;
pub(super) const RETURN: u8 = 2;
pub(super) const ERROR: u8 = 3;
pub(super) const SIGNAL: u8 = 4;
/// Header fields.
pub(super) const PATH: u8 = 1;
pub(super) const INTERFACE: u8 = 2;
pub(super) const MEMBER: u8 = 3;
pub(super) const ERROR_NAME: u8 = 4;
pub(super) const REPLY_SERIAL: u8 = 5;
pub(super) const SIGNATURE: u8 = 8;

/// A call of `method` of the manager.
pub(super) fn message(serial: u32, interface: &str, method: &str, body: &Body) -> Vec<u8> {
    let mut fields = Body::default();
    for (field, kind, text) in [
        (PATH, "o", OBJECT),
        (INTERFACE, "s", interface),
        (MEMBER, "s", method),
    ] {
        fields.align(8).byte(field).signature(kind).string(text);
    }
    if !body.signature.is_empty() {
        fields.align(8).byte(SIGNATURE).signature("g");
        fields.put_signature(&body.signature);
    }
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
    let mut message = vec![b'l', CALL, 0, 1];
    message.extend(length(&body.bytes));
    message.extend(serial.to_le_bytes());
    message.extend(length(&fields.bytes));
    message.extend(&fields.bytes);
    message.resize(message.len().next_multiple_of(8), 0);
    message.extend(&body.bytes);
    message
}

/// Arguments of a call, or the fields of a header, as they are written ("Marshaling (Wire Format)").
#[derive(Default)]
pub(crate) struct Body {
    pub(super) bytes: Vec<u8>,
    pub(super) signature: String,
}

impl Body {
    pub(crate) fn string(&mut self, text: &str) -> &mut Self {
        self.signature.push('s');
        self.put_string(text)
    }

    /// `ssa(sv)a(sa(sv))` for StartTransientUnit: a unit with these processes, in that slice.
    pub(crate) fn transient_unit(&mut self, unit: &str, pids: &[u32], slice: &str) -> &mut Self {
        self.string(unit).string("fail");
        self.signature.push_str("a(sv)a(sa(sv))");
        self.array(8, |properties| {
            properties.align(8).put_string("PIDs");
            properties.put_signature("au");
            properties.array(4, |numbers| {
                for pid in pids {
                    numbers.number(*pid);
                }
            });
            properties.align(8).put_string("Slice");
            properties.put_signature("s");
            properties.put_string(slice);
        });
        self.array(8, |_no_other_units| {})
    }

    /// An array whose elements are aligned to `alignment` bytes: its length does not count what comes
    /// before the first of them.
    fn array(&mut self, alignment: usize, elements: impl FnOnce(&mut Self)) -> &mut Self {
        self.number(0);
        let length_at = self.bytes.len() - 4;
        self.align(alignment);
        let first = self.bytes.len();
        elements(self);
        let length = u32::try_from(self.bytes.len() - first).unwrap_or(u32::MAX);
        self.bytes[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
        self
    }

    pub(super) fn align(&mut self, to: usize) -> &mut Self {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
        self
    }

    pub(super) fn byte(&mut self, byte: u8) -> &mut Self {
        self.bytes.push(byte);
        self
    }

    pub(super) fn number(&mut self, number: u32) -> &mut Self {
        self.align(4);
        self.bytes.extend(number.to_le_bytes());
        self
    }

    /// The text of a string or an object path.
    pub(super) fn put_string(&mut self, text: &str) -> &mut Self {
        self.number(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.bytes.extend(text.as_bytes());
        self.byte(0)
    }

    pub(super) fn put_signature(&mut self, signature: &str) -> &mut Self {
        self.byte(u8::try_from(signature.len()).unwrap_or(u8::MAX));
        self.bytes.extend(signature.as_bytes());
        self.byte(0)
    }

    /// The signature of a header field's value.
    pub(super) fn signature(&mut self, signature: &str) -> &mut Self {
        self.put_signature(signature)
    }
}

/// Reads what [`Body`] writes. Every length is checked.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }

    pub(super) fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let end = self
            .at
            .checked_add(count)
            .context("a message is truncated")?;
        let taken = self
            .bytes
            .get(self.at..end)
            .context("a message is truncated")?;
        self.at = end;
        Ok(taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn number(&mut self) -> Result<u32> {
        self.align(4);
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    pub(super) fn string(&mut self) -> Result<String> {
        let length = usize::try_from(self.number()?)?;
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.take(1)?;
        Ok(text)
    }

    pub(super) fn signature(&mut self) -> Result<String> {
        let length = usize::from(self.byte()?);
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.take(1)?;
        Ok(text)
    }
}
