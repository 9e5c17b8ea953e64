//! Conversions of free-form metadata: `google.protobuf.Struct` in messages, JSON in the application.
//!
//! Every finite double keeps its bits. PostgreSQL's `jsonb` stores numbers as decimals of any precision, which
//! are exact, but have no negative zero: it stores `-0.0` as `0.0`. Zero is therefore written as the integer
//! `0`, and a zero with a fraction is read as negative zero.

use prost::Message;
use prost_types::{ListValue, Struct, Value as Wire, value::Kind};
use serde_json::{Map, Number, Value};

use crate::domain::{
    text::{METADATA_BYTES_MAX, METADATA_DEPTH_MAX, METADATA_ELEMENTS_MAX},
    violations::Violations,
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
    let bytes = value.encoded_len();
    let mut reader = Reader::default();
    let metadata = reader.read_object(value, 1);
    for (actual, max, unit) in [
        (bytes, METADATA_BYTES_MAX, "encoded bytes"),
        (reader.element_count, METADATA_ELEMENTS_MAX, "elements"),
        (reader.depth, METADATA_DEPTH_MAX, "levels of nesting"),
    ] {
        if actual > max {
            violations.add(field, format!("must have at most {max} {unit}, has {actual}"));
        }
    }
    if reader.has_non_finite {
        violations.add(field, "must not contain infinite numbers or NaN");
    }
    metadata
}

/// Converts metadata to JSON and measures it.
#[derive(Default)]
struct Reader {
    /// The number of fields of all objects and of values of all lists.
    element_count: usize,
    /// The depth of the innermost object or list.
    depth: usize,
    /// Whether a number is infinite or NaN, which JSON does not support.
    has_non_finite: bool,
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
                self.has_non_finite |= number.is_none();
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
        self.element_count += element_count;
        self.depth = self.depth.max(depth);
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
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn metadata_survives_a_round_trip() {
        let metadata = json!({
            "text": "é\n", "whole": 42, "part": 0.5, "yes": true, "nothing": null,
            "list": [1, "two", [3]], "nested": {"deep": {"er": []}},
        });
        let map = metadata.as_object().unwrap().clone();
        let mut violations = Violations::new();
        assert_eq!(from_proto("spec.metadata", to_proto(map.clone()), &mut violations), map);
        assert!(violations.is_empty());
    }

    #[test]
    fn rejects_numbers_without_a_json_form() {
        for number in [f64::NAN, f64::INFINITY] {
            let list = ListValue { values: vec![Wire { kind: Some(Kind::NumberValue(number)) }] };
            let fields = [("list".to_owned(), Wire { kind: Some(Kind::ListValue(list)) })];
            let mut violations = Violations::new();
            from_proto("spec.metadata", Struct { fields: fields.into() }, &mut violations);
            assert_eq!(violations.iter().next().unwrap().field, "spec.metadata");
        }
    }

    /// Returns the JSON text of a number as PostgreSQL's `jsonb` returns it: a decimal without an exponent and
    /// without the sign of zero.
    fn stored_text(number: &Number) -> String {
        let text = number.to_string();
        let (sign, digits) = text.strip_prefix('-').map_or(("", text.as_str()), |digits| ("-", digits));
        let (mantissa, exponent) = digits.split_once('e').unwrap_or((digits, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let point = whole.len() as i64 + exponent.parse::<i64>().unwrap();
        let mut digits = format!("{whole}{fraction}");
        while point > digits.len() as i64 {
            digits.push('0');
        }
        let zeros = usize::try_from(1 - point).unwrap_or_default();
        let digits = format!("{}{digits}", "0".repeat(zeros));
        let (whole, fraction) = digits.split_at(usize::try_from(point.max(1)).unwrap());
        let sign = if digits.contains(|digit| digit != '0') { sign } else { "" };
        if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
    }

    fn assert_survives(number: f64) {
        let json = number_from_proto(number).unwrap();
        assert_eq!(number_to_proto(&json).to_bits(), number.to_bits(), "{number:e} in memory");
        for text in [json.to_string(), stored_text(&json)] {
            let read: Number = serde_json::from_str(&text).unwrap();
            assert_eq!(number_to_proto(&read).to_bits(), number.to_bits(), "{number:e} as {text}");
            let read: Value = serde_json::from_str(&format!("[{text}]")).unwrap();
            let read = serde_json::to_string(&read).unwrap();
            let read: Vec<Number> = serde_json::from_str(&read).unwrap();
            assert_eq!(number_to_proto(&read[0]).to_bits(), number.to_bits(), "{number:e} read twice");
        }
    }

    #[test]
    fn extreme_numbers_keep_their_bits() {
        for number in [
            0.0,
            f64::MAX,
            f64::MIN_POSITIVE,
            f64::from_bits(1),
            f64::from_bits(0x000f_ffff_ffff_ffff),
            WHOLE_NUMBER_MAX,
            WHOLE_NUMBER_MAX + 2.0,
            u64::MAX as f64,
            1e23,
            0.1,
        ] {
            assert_survives(number);
            assert_survives(-number);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]

        #[test]
        fn every_finite_double_keeps_its_bits(bits in any::<u64>()) {
            let number = f64::from_bits(bits);
            if number.is_finite() {
                assert_survives(number);
            } else {
                prop_assert_eq!(number_from_proto(number), None);
            }
        }
    }
}
