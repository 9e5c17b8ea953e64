//! Free metadata: `google.protobuf.Struct` on the wire, JSON inside.

use prost_types::{ListValue, Struct, Value as Wire, value::Kind};
use serde_json::{Map, Number, Value};

use crate::domain::violations::Violations;

/// Whole numbers up to this size are exact in a double, and are kept as whole numbers.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// JSON on the wire.
pub(in crate::grpc) fn to_wire(map: Map<String, Value>) -> Struct {
    Struct { fields: map.into_iter().map(|(key, value)| (key, value_to_wire(value))).collect() }
}

fn value_to_wire(value: Value) -> Wire {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(value),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text),
        Value::Array(values) => {
            Kind::ListValue(ListValue { values: values.into_iter().map(value_to_wire).collect() })
        }
        Value::Object(map) => Kind::StructValue(to_wire(map)),
    };
    Wire { kind: Some(kind) }
}

/// JSON from the wire. Depth needs no check: prost decodes at most a hundred levels.
pub(in crate::grpc) fn from_wire(field: &str, value: Struct, wrong: &mut Violations) -> Map<String, Value> {
    let read = object(value);
    wrong.ok_or_add(field, read.ok_or("must not contain infinite numbers or NaN")).unwrap_or_default()
}

fn object(value: Struct) -> Option<Map<String, Value>> {
    value.fields.into_iter().map(|(key, value)| Some((key, value_from_wire(value)?))).collect()
}

fn value_from_wire(value: Wire) -> Option<Value> {
    Some(match value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => Value::Bool(value),
        Some(Kind::NumberValue(number)) => Value::Number(number_from_wire(number)?),
        Some(Kind::StringValue(text)) => Value::String(text),
        Some(Kind::ListValue(list)) => {
            Value::Array(list.values.into_iter().map(value_from_wire).collect::<Option<_>>()?)
        }
        Some(Kind::StructValue(value)) => Value::Object(object(value)?),
    })
}

fn number_from_wire(number: f64) -> Option<Number> {
    if number.fract() == 0.0 && number.abs() <= WHOLE_MAX {
        #[allow(clippy::cast_possible_truncation, reason = "a whole number that was just checked to fit")]
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
    fn metadata_comes_back_as_it_went() {
        let metadata = json!({
            "text": "é\n", "whole": 42, "part": 0.5, "yes": true, "nothing": null,
            "list": [1, "two", [3]], "nested": {"deep": {"er": []}},
        });
        let map = metadata.as_object().unwrap().clone();
        let mut wrong = Violations::new();
        assert_eq!(from_wire("spec.metadata", to_wire(map.clone()), &mut wrong), map);
        assert!(wrong.is_empty());
    }

    #[test]
    fn what_json_cannot_say_is_a_violation() {
        for number in [f64::NAN, f64::INFINITY] {
            let list = ListValue { values: vec![Wire { kind: Some(Kind::NumberValue(number)) }] };
            let fields = [("list".to_owned(), Wire { kind: Some(Kind::ListValue(list)) })];
            let mut wrong = Violations::new();
            from_wire("spec.metadata", Struct { fields: fields.into() }, &mut wrong);
            assert_eq!(wrong.iter().next().unwrap().field, "spec.metadata");
        }
    }

    proptest! {
        #[test]
        fn every_finite_number_keeps_its_value(
            number in proptest::num::f64::NORMAL | proptest::num::f64::ZERO,
        ) {
            prop_assert_eq!(number_from_wire(number).unwrap().as_f64(), Some(number));
        }
    }
}
