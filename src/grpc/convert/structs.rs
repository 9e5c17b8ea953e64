//! Conversions of free-form metadata: `google.protobuf.Struct` in messages, JSON in the application.
//!
//! Every finite double keeps its bits. PostgreSQL's `jsonb` stores numbers as decimals of any precision, which
//! are exact, but have no negative zero: it stores `-0.0` as `0.0`. Zero is therefore written as the integer
//! `0`, and a zero with a fraction is read as negative zero.

use prost::Message;
use prost_types::{ListValue, Struct, Value as Wire, value::Kind};
use serde_json::{Map, Number, Value};

use crate::{
    domain::{
        text::{METADATA_BYTES_MAX, METADATA_DEPTH_MAX, METADATA_ELEMENTS_MAX},
        violations::Violations,
    },
    proto::struct_limits::{StructLimits, StructSize},
};

/// The limits for the structs of requests, which are all metadata. Messages are checked before they are decoded,
/// and their metadata again when it is converted.
pub(in crate::grpc) const LIMITS: StructLimits = StructLimits {
    encoded_bytes_max: METADATA_BYTES_MAX,
    element_count_max: METADATA_ELEMENTS_MAX,
    depth_max: METADATA_DEPTH_MAX,
};

/// The largest whole number that a double represents exactly. Whole numbers up to this limit become JSON
/// integers.
const WHOLE_NUMBER_MAX: f64 = 9_007_199_254_740_992.0;

pub(in crate::grpc) fn to_proto(map: Map<String, Value>) -> Struct {
    Struct { fields: map.into_iter().map(|(key, value)| (key, value_to_proto(value))).collect() }
}

fn value_to_proto(value: Value) -> Wire {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(value),
        Value::Number(number) => Kind::NumberValue(number_to_proto(&number)),
        Value::String(text) => Kind::StringValue(text),
        Value::Array(values) => {
            Kind::ListValue(ListValue { values: values.into_iter().map(value_to_proto).collect() })
        }
        Value::Object(map) => Kind::StructValue(to_proto(map)),
    };
    Wire { kind: Some(kind) }
}

/// Converts metadata to JSON, and adds a violation for each limit that it exceeds. The limits apply to the
/// encoded message; prost limits the depth of the recursion while it decodes.
pub(in crate::grpc) fn from_proto(
    field: &str,
    value: Struct,
    violations: &mut Violations,
) -> Map<String, Value> {
    let size = StructSize { encoded_bytes: value.encoded_len(), ..StructSize::default() };
    let mut reader = Reader { size };
    let metadata = reader.read_object(value, 1);
    for description in LIMITS.describe_violations(&reader.size) {
        violations.add(field, description);
    }
    metadata
}

/// Converts metadata to JSON and measures it.
struct Reader {
    size: StructSize,
}

impl Reader {
    fn read_object(&mut self, value: Struct, depth: usize) -> Map<String, Value> {
        self.enter(value.fields.len(), depth);
        value.fields.into_iter().map(|(key, value)| (key, self.read_value(value, depth))).collect()
    }

    fn read_value(&mut self, value: Wire, depth: usize) -> Value {
        match value.kind {
            None | Some(Kind::NullValue(_)) => Value::Null,
            Some(Kind::BoolValue(value)) => Value::Bool(value),
            Some(Kind::NumberValue(number)) => {
                let number = number_from_proto(number);
                self.size.has_non_finite |= number.is_none();
                number.map_or(Value::Null, Value::Number)
            }
            Some(Kind::StringValue(text)) => Value::String(text),
            Some(Kind::ListValue(list)) => {
                self.enter(list.values.len(), depth + 1);
                Value::Array(list.values.into_iter().map(|value| self.read_value(value, depth + 1)).collect())
            }
            Some(Kind::StructValue(value)) => Value::Object(self.read_object(value, depth + 1)),
        }
    }

    fn enter(&mut self, element_count: usize, depth: usize) {
        self.size.element_count += element_count;
        self.size.depth = self.size.depth.max(depth);
    }
}

fn number_from_proto(number: f64) -> Option<Number> {
    let is_negative_zero = number == 0.0 && number.is_sign_negative();
    if !is_negative_zero && number.fract() == 0.0 && number.abs() <= WHOLE_NUMBER_MAX {
        #[allow(
            clippy::cast_possible_truncation,
            reason = "the number is whole, and its size is checked above"
        )]
        return Some(Number::from(number as i64));
    }
    Number::from_f64(number)
}

fn number_to_proto(number: &Number) -> f64 {
    match number.as_f64().unwrap_or_default() {
        zero if zero == 0.0 && number.is_f64() => -0.0,
        value => value,
    }
}

#[cfg(test)]
#[path = "structs_tests.rs"]
mod tests;
