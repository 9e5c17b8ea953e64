//! Conversions of free-form metadata: `google.protobuf.Struct` in messages, JSON in the application.

use prost_types::{ListValue, Struct, Value as Wire, value::Kind};
use serde_json::{Map, Number, Value};

use crate::domain::violations::Violations;

/// The largest whole number that a double represents exactly. Up to it, whole numbers become JSON integers.
const WHOLE_NUMBER_MAX: f64 = 9_007_199_254_740_992.0;

pub(in crate::grpc) fn to_proto(map: Map<String, Value>) -> Struct {
    Struct { fields: map.into_iter().map(|(key, value)| (key, value_to_proto(value))).collect() }
}

fn value_to_proto(value: Value) -> Wire {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(value),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text),
        Value::Array(values) => {
            Kind::ListValue(ListValue { values: values.into_iter().map(value_to_proto).collect() })
        }
        Value::Object(map) => Kind::StructValue(to_proto(map)),
    };
    Wire { kind: Some(kind) }
}

/// Converts a struct to JSON. The depth needs no check, because prost decodes at most a hundred levels.
pub(in crate::grpc) fn from_proto(
    field: &str,
    value: Struct,
    violations: &mut Violations,
) -> Map<String, Value> {
    let read = object_from_proto(value);
    violations.ok_or_add(field, read.ok_or("must not contain infinite numbers or NaN")).unwrap_or_default()
}

fn object_from_proto(value: Struct) -> Option<Map<String, Value>> {
    value.fields.into_iter().map(|(key, value)| Some((key, value_from_proto(value)?))).collect()
}

fn value_from_proto(value: Wire) -> Option<Value> {
    Some(match value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => Value::Bool(value),
        Some(Kind::NumberValue(number)) => Value::Number(number_from_proto(number)?),
        Some(Kind::StringValue(text)) => Value::String(text),
        Some(Kind::ListValue(list)) => {
            Value::Array(list.values.into_iter().map(value_from_proto).collect::<Option<_>>()?)
        }
        Some(Kind::StructValue(value)) => Value::Object(object_from_proto(value)?),
    })
}

fn number_from_proto(number: f64) -> Option<Number> {
    if number.fract() == 0.0 && number.abs() <= WHOLE_NUMBER_MAX {
        #[allow(
            clippy::cast_possible_truncation,
            reason = "the number is whole, and its size is checked above"
        )]
        return Some(Number::from(number as i64));
    }
    Number::from_f64(number)
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

    proptest! {
        #[test]
        fn finite_numbers_keep_their_value(
            number in proptest::num::f64::NORMAL | proptest::num::f64::ZERO,
        ) {
            prop_assert_eq!(number_from_proto(number).unwrap().as_f64(), Some(number));
        }
    }
}
