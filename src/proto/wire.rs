//! Scans encoded messages without decoding them: counts the values of repeated fields, measures each
//! `google.protobuf.Struct`, and estimates the memory that the decoded message takes. A scan stops at the first
//! limit, except for structs, whose error has the actual sizes.
//!
//! A struct is measured as it is encoded. A field that is sent several times is merged by the decoder, so all of
//! its occurrences count. A decoded struct can be smaller than the scan finds, for example if a key is repeated,
//! but never larger.

use std::{collections::HashMap, sync::LazyLock};

use prost::Message as _;
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};

use super::{
    DESCRIPTOR_SET,
    struct_limits::{StructLimits, StructSize},
};

/// The most values of repeated fields in one message, in all its parts except structs: more than any valid
/// request has. The limits of single fields are much lower, and are checked after decoding, together with all
/// other fields. It is also the number of elements at which the scan of a struct stops.
pub const VALUES_MAX: usize = 12_000;

/// The depth at which prost rejects a message. The scan does not look deeper.
const DEPTH_MAX: usize = 100;

/// The memory of an entry of a map. A map is a B-tree, whose smallest node has space for eleven entries.
const ENTRY_BYTES: usize = 768;

/// The memory of another value of a repeated field, with the allocations of a few short strings.
const VALUE_BYTES: usize = 160;

/// The message of file chunks. The byte budget of uploads counts their data.
const CHUNK_MESSAGE: &str = "strongroom.v1.UploadChunk";

const STRUCT_MESSAGE: &str = "google.protobuf.Struct";

/// The other message that adds a level of nesting to a struct.
const LIST_MESSAGE: &str = "google.protobuf.ListValue";

/// The result of a scan: the size of the message after decoding.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weight {
    /// The number of values of all repeated fields, except those inside structs.
    pub value_count: usize,
    /// The estimated memory of the decoded message, in bytes.
    pub decoded_bytes: usize,
}

/// The reason why a message must not be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It is not a valid encoding, for this cause.
    Malformed(&'static str),
    /// Fields exceed limits.
    TooMuch(Vec<Excess>),
}

/// A field that exceeds a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excess {
    /// The path of the field in the message, such as `spec.attachments`.
    pub field: String,
    /// The violated limit, and the actual value.
    pub description: String,
}

/// Scans an encoded message of the type with this full name. Its structs must be within these limits.
///
/// # Errors
/// Returns why the message must not be decoded.
pub fn scan(message: &str, bytes: &[u8], limits: &StructLimits) -> Result<Weight, Refusal> {
    let Some(index) = SCHEMA.by_name.get(message) else {
        return Err(Refusal::Malformed("unknown message type"));
    };
    let mut scanner = Scanner::new(limits);
    scanner.message(*index, bytes)?;
    scanner.check_structs()?;
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
    /// Whether it is an object or a list, which adds a level of nesting to a struct.
    is_level: bool,
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
                is_level: name == STRUCT_MESSAGE || name == LIST_MESSAGE,
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

struct Scanner<'a> {
    limits: &'a StructLimits,
    weight: Weight,
    /// The names of the fields from the root to the current message, for errors.
    path: Vec<&'static str>,
    /// The number of the innermost value of a repeated field around the current position; 0 outside.
    value: usize,
    structs: Vec<ScannedStruct>,
    /// The struct around the current position.
    inside: Option<Inside>,
}

/// A struct of the message, with all of its occurrences.
struct ScannedStruct {
    /// The number of the value of a repeated field that it belongs to.
    value: usize,
    path: Vec<&'static str>,
    size: StructSize,
}

/// A position inside a struct.
struct Inside {
    /// The index of the struct.
    index: usize,
    depth: usize,
}

impl<'a> Scanner<'a> {
    fn new(limits: &'a StructLimits) -> Self {
        Self {
            limits,
            weight: Weight::default(),
            path: Vec::new(),
            value: 0,
            structs: Vec::new(),
            inside: None,
        }
    }

    fn message(&mut self, index: usize, bytes: &[u8]) -> Result<(), Refusal> {
        if self.path.len() > DEPTH_MAX {
            if let Some(size) = self.struct_size() {
                size.is_partial = true;
            }
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
            (FieldKind::Message { index, .. }, Value::Bytes(bytes)) if field.is_repeated => {
                let outer = std::mem::replace(&mut self.value, self.weight.value_count);
                self.submessage(index, bytes)?;
                self.value = outer;
            }
            (FieldKind::Message { index, .. }, Value::Bytes(bytes)) => self.submessage(index, bytes)?,
            // The received bytes, and a copy of them.
            (FieldKind::Text, Value::Bytes(bytes)) => self.add_bytes(2 * bytes.len()),
            (FieldKind::Bytes, Value::Bytes(bytes)) => self.add_bytes(bytes.len()),
            // Inside a struct, it is a double.
            (FieldKind::Scalar, Value::Fixed64(bits)) if !f64::from_bits(bits).is_finite() => {
                if let Some(size) = self.struct_size() {
                    size.has_non_finite = true;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn submessage(&mut self, index: usize, bytes: &[u8]) -> Result<(), Refusal> {
        let schema: &'static MessageSchema = &SCHEMA.messages[index];
        match self.inside {
            None if schema.is_struct => {
                let index_of_struct = self.find_or_add_struct();
                self.structs[index_of_struct].size.encoded_bytes += bytes.len();
                self.inside = Some(Inside { index: index_of_struct, depth: 0 });
                self.level(index, bytes)?;
                self.inside = None;
                Ok(())
            }
            Some(_) if schema.is_level => self.level(index, bytes),
            _ => self.message(index, bytes),
        }
    }

    /// Scans an object or a list of a struct.
    fn level(&mut self, index: usize, bytes: &[u8]) -> Result<(), Refusal> {
        if let Some(Inside { index, depth }) = &mut self.inside {
            *depth += 1;
            let size = &mut self.structs[*index].size;
            size.depth = size.depth.max(*depth);
        }
        self.message(index, bytes)?;
        if let Some(inside) = &mut self.inside {
            inside.depth -= 1;
        }
        Ok(())
    }

    /// Returns the index of the struct at the current position. The decoder merges occurrences of one field.
    fn find_or_add_struct(&mut self) -> usize {
        let is_same = |known: &ScannedStruct| known.value == self.value && known.path == self.path;
        if let Some(known) = self.structs.iter().rposition(is_same) {
            return known;
        }
        let size = StructSize::default();
        self.structs.push(ScannedStruct { value: self.value, path: self.path.clone(), size });
        self.structs.len() - 1
    }

    /// Returns the size of the struct around the current position.
    fn struct_size(&mut self) -> Option<&mut StructSize> {
        let index = self.inside.as_ref()?.index;
        self.structs.get_mut(index).map(|scanned| &mut scanned.size)
    }

    fn count(&mut self, count: usize, bytes_each: usize) -> Result<(), Refusal> {
        self.add_bytes(count.saturating_mul(bytes_each));
        let scanned_max = VALUES_MAX.max(self.limits.element_count_max);
        if let Some(size) = self.struct_size() {
            size.element_count = size.element_count.saturating_add(count);
            if size.element_count > scanned_max {
                size.is_partial = true;
                return self.check_structs();
            }
            return Ok(());
        }
        self.weight.value_count = self.weight.value_count.saturating_add(count);
        if self.weight.value_count > VALUES_MAX {
            let description = format!(
                "has too many values; all lists of a request may have at most {VALUES_MAX} values together"
            );
            return Err(Refusal::TooMuch(vec![Excess { field: self.path.join("."), description }]));
        }
        Ok(())
    }

    fn add_bytes(&mut self, bytes: usize) {
        self.weight.decoded_bytes = self.weight.decoded_bytes.saturating_add(bytes);
    }

    /// Refuses the message if structs exceed their limits. The fields inside a struct are those of
    /// `google.protobuf.Struct` and mean nothing to the caller, so the field of the struct is named.
    fn check_structs(&self) -> Result<(), Refusal> {
        let excessive = self.structs.iter().filter(|scanned| self.limits.are_exceeded_by(&scanned.size));
        let excesses: Vec<Excess> = excessive
            .flat_map(|scanned| {
                let descriptions = self.limits.describe_violations(&scanned.size);
                let field = scanned.path.join(".");
                descriptions.into_iter().map(move |description| Excess { field: field.clone(), description })
            })
            .collect();
        if excesses.is_empty() { Ok(()) } else { Err(Refusal::TooMuch(excesses)) }
    }
}

/// The value of a field.
#[derive(Clone, Copy)]
enum Value<'a> {
    Number,
    /// The bits of a number of eight bytes.
    Fixed64(u64),
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
            1 => {
                let little_endian = self.take(8)?.iter().rev();
                Value::Fixed64(little_endian.fold(0, |bits, byte| (bits << 8) | u64::from(*byte)))
            }
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
