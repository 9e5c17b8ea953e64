//! Scans encoded messages without decoding them: counts the values of repeated fields, and estimates the
//! memory that the decoded message takes. A scan stops at the first limit.

use std::{collections::HashMap, sync::LazyLock};

use prost::Message as _;
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};

use super::DESCRIPTOR_SET;

/// The most values of repeated fields in one message, in all its parts: more than any valid request has. The
/// limits of single fields are much lower, and are checked after decoding, together with all other fields.
pub const VALUES_MAX: usize = 12_000;

/// The most elements of one `google.protobuf.Struct`: four times the limit for metadata. A smaller excess is
/// reported together with the violations of other fields.
pub const STRUCT_ELEMENTS_MAX: usize = 4_000;

/// The most encoded bytes of one `google.protobuf.Struct`: four times the limit for metadata.
pub const STRUCT_BYTES_MAX: usize = 64 * 1024;

/// The depth at which prost rejects a message. The scan does not look deeper.
const DEPTH_MAX: usize = 100;

/// The memory of an entry of a map. A map is a B-tree, whose smallest node has space for eleven entries.
const ENTRY_BYTES: usize = 768;

/// The memory of another value of a repeated field, with the allocations of a few short strings.
const VALUE_BYTES: usize = 160;

/// The message of file chunks. The byte budget of uploads counts their data.
const CHUNK_MESSAGE: &str = "strongroom.v1.UploadChunk";

const STRUCT_MESSAGE: &str = "google.protobuf.Struct";

/// The result of a scan: the size of the message after decoding.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weight {
    /// The number of values of all repeated fields.
    pub value_count: usize,
    /// The estimated memory of the decoded message, in bytes.
    pub decoded_bytes: usize,
}

/// The reason why a message must not be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It is not a valid encoding, for this cause.
    Malformed(&'static str),
    /// The field exceeds a limit.
    TooMuch {
        /// The path of the field in the message, such as `spec.attachments`.
        field: String,
        /// The violated limit, and the actual value.
        description: String,
    },
}

/// Scans an encoded message of the type with this full name.
///
/// # Errors
/// Returns why the message must not be decoded.
pub fn scan(message: &str, bytes: &[u8]) -> Result<Weight, Refusal> {
    let Some(index) = SCHEMA.by_name.get(message) else {
        return Err(Refusal::Malformed("unknown message type"));
    };
    let mut scanner = Scanner::default();
    scanner.message(*index, bytes)?;
    Ok(scanner.weight)
}

/// The messages of the contract and of the files that it imports.
static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    // The compiled-in set is valid; a test scans every message of it.
    Schema::new(&FileDescriptorSet::decode(DESCRIPTOR_SET).unwrap_or_default())
});

#[derive(Default)]
struct Schema {
    messages: Vec<MessageSchema>,
    by_name: HashMap<String, usize>,
}

#[derive(Default)]
struct MessageSchema {
    fields: HashMap<u32, Field>,
    is_struct: bool,
}

struct Field {
    name: String,
    is_repeated: bool,
    kind: FieldKind,
}

#[derive(Clone, Copy)]
enum FieldKind {
    /// A message with this index in the schema, and whether it is an entry of a map.
    Message { index: usize, is_entry: bool },
    /// A string, which is copied from the received bytes.
    Text,
    /// Bytes, which share the memory of the received message.
    Bytes,
    /// Data that is counted elsewhere.
    Uncounted,
    /// A number, a boolean or an enum value.
    Scalar,
}

impl Schema {
    fn new(set: &FileDescriptorSet) -> Self {
        let mut all = Vec::new();
        for file in &set.file {
            let package = file.package.clone().unwrap_or_default();
            for message in &file.message_type {
                collect(&package, message, &mut all);
            }
        }
        let by_name: HashMap<String, usize> =
            all.iter().enumerate().map(|(index, (name, _))| (name.clone(), index)).collect();
        let is_entry: Vec<bool> = all
            .iter()
            .map(|(_, message)| message.options.as_ref().is_some_and(|options| options.map_entry()))
            .collect();
        let messages = all
            .iter()
            .map(|(name, message)| MessageSchema {
                fields: message
                    .field
                    .iter()
                    .filter_map(|field| Some((field.number().try_into().ok()?, field)))
                    .map(|(number, field)| (number, Field::new(name, field, &by_name, &is_entry)))
                    .collect(),
                is_struct: name == STRUCT_MESSAGE,
            })
            .collect();
        Self { messages, by_name }
    }
}

/// Collects a message and the messages inside it, each with its full name.
fn collect<'a>(parent: &str, message: &'a DescriptorProto, all: &mut Vec<(String, &'a DescriptorProto)>) {
    let name = format!("{parent}.{}", message.name());
    for nested in &message.nested_type {
        collect(&name, nested, all);
    }
    all.push((name, message));
}

impl Field {
    fn new(
        message: &str,
        field: &FieldDescriptorProto,
        by_name: &HashMap<String, usize>,
        is_entry: &[bool],
    ) -> Self {
        let kind = match field.r#type() {
            Type::Message | Type::Group => {
                match by_name.get(field.type_name().trim_start_matches('.')).copied() {
                    Some(index) => FieldKind::Message { index, is_entry: is_entry[index] },
                    None => FieldKind::Text,
                }
            }
            Type::Bytes if message == CHUNK_MESSAGE => FieldKind::Uncounted,
            Type::Bytes => FieldKind::Bytes,
            Type::String => FieldKind::Text,
            _ => FieldKind::Scalar,
        };
        Self { name: field.name().to_owned(), is_repeated: field.label() == Label::Repeated, kind }
    }
}

#[derive(Default)]
struct Scanner {
    weight: Weight,
    /// The names of the fields from the root to the current message, for errors.
    path: Vec<&'static str>,
    /// The number of elements before the outermost struct around the current position.
    struct_start: Option<usize>,
}

impl Scanner {
    fn message(&mut self, index: usize, bytes: &[u8]) -> Result<(), Refusal> {
        if self.path.len() > DEPTH_MAX {
            return Ok(());
        }
        let schema: &'static MessageSchema = &SCHEMA.messages[index];
        let mut input = Input { bytes };
        while !input.bytes.is_empty() {
            let (number, value) = input.field()?;
            let Some(field) = schema.fields.get(&number) else { continue };
            self.path.push(&field.name);
            self.field(field, value)?;
            self.path.pop();
        }
        Ok(())
    }

    fn field(&mut self, field: &'static Field, value: Value<'_>) -> Result<(), Refusal> {
        if field.is_repeated {
            let count = match (field.kind, value) {
                (FieldKind::Scalar, Value::Bytes(packed)) => packed.len(),
                _ => 1,
            };
            let bytes = match field.kind {
                FieldKind::Message { is_entry: true, .. } => ENTRY_BYTES,
                FieldKind::Message { .. } | FieldKind::Text | FieldKind::Bytes | FieldKind::Uncounted => {
                    VALUE_BYTES
                }
                FieldKind::Scalar => 8,
            };
            self.count(count, bytes)?;
        }
        match (field.kind, value) {
            (FieldKind::Message { index, .. }, Value::Bytes(bytes)) => self.submessage(index, bytes),
            (FieldKind::Text, Value::Bytes(bytes)) => {
                // The received bytes, and a copy of them.
                self.add_bytes(2 * bytes.len());
                Ok(())
            }
            (FieldKind::Bytes, Value::Bytes(bytes)) => {
                self.add_bytes(bytes.len());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn submessage(&mut self, index: usize, bytes: &[u8]) -> Result<(), Refusal> {
        if !SCHEMA.messages[index].is_struct || self.struct_start.is_some() {
            return self.message(index, bytes);
        }
        if bytes.len() > STRUCT_BYTES_MAX {
            let (max, actual) = (STRUCT_BYTES_MAX / 4, bytes.len());
            return Err(self.too_much(format!("must have at most {max} encoded bytes, has {actual}")));
        }
        self.struct_start = Some(self.weight.value_count);
        self.message(index, bytes)?;
        self.struct_start = None;
        Ok(())
    }

    fn count(&mut self, count: usize, bytes_each: usize) -> Result<(), Refusal> {
        self.weight.value_count = self.weight.value_count.saturating_add(count);
        self.add_bytes(count.saturating_mul(bytes_each));
        let (in_struct, total) = (self.struct_start, self.weight.value_count);
        if in_struct.is_some_and(|start| total - start > STRUCT_ELEMENTS_MAX) {
            let max = STRUCT_ELEMENTS_MAX / 4;
            let description =
                format!("must have at most {max} elements, has more than {STRUCT_ELEMENTS_MAX}");
            return Err(self.too_much(description));
        }
        if total > VALUES_MAX {
            let description = format!(
                "has too many values; all lists of a request may have at most {VALUES_MAX} values together"
            );
            return Err(self.too_much(description));
        }
        Ok(())
    }

    fn add_bytes(&mut self, bytes: usize) {
        self.weight.decoded_bytes = self.weight.decoded_bytes.saturating_add(bytes);
    }

    /// Refuses the current field; inside a struct, the field of the struct.
    fn too_much(&self, description: String) -> Refusal {
        // The fields inside a struct are those of `google.protobuf.Struct`, and mean nothing to the caller.
        let end = match self.struct_start {
            Some(_) => self.path.iter().position(|name| *name == "fields").unwrap_or(self.path.len()),
            None => self.path.len(),
        };
        Refusal::TooMuch { field: self.path[..end].join("."), description }
    }
}

/// The value of a field.
#[derive(Clone, Copy)]
enum Value<'a> {
    Number,
    Bytes(&'a [u8]),
}

struct Input<'a> {
    bytes: &'a [u8],
}

impl<'a> Input<'a> {
    /// Reads the number and the value of a field.
    fn field(&mut self) -> Result<(u32, Value<'a>), Refusal> {
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).map_err(|_| Refusal::Malformed("invalid field number"))?;
        let value = match key & 7 {
            0 => {
                self.varint()?;
                Value::Number
            }
            1 => self.take(8).map(|_| Value::Number)?,
            2 => {
                let length = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Number)?,
            // Groups do not exist in proto3.
            _ => return Err(Refusal::Malformed("invalid wire type")),
        };
        Ok((number, value))
    }

    fn varint(&mut self) -> Result<u64, Refusal> {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let [byte] = *self.take(1)? else { break };
            value |= u64::from(byte & 0x7F).checked_shl(shift).unwrap_or(0);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Refusal::Malformed("invalid varint"))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Refusal> {
        let (taken, rest) =
            self.bytes.split_at_checked(length).ok_or(Refusal::Malformed("message is truncated"))?;
        self.bytes = rest;
        Ok(taken)
    }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
