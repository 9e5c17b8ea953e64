//! Tests of the conversion of metadata, and of its limits before and after decoding.

use proptest::prelude::*;
use prost::Name as _;
use serde_json::json;

use super::*;
use crate::{
    domain::violations::Violation,
    proto::{
        v1::{UploadFileRequest, UploadSpec, upload_file_request::Message as Content},
        wire::{self, Excess, Refusal},
    },
};

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

/// Returns the violations that are found after decoding.
fn validate(metadata: Struct) -> Vec<Excess> {
    let mut violations = Violations::new();
    from_proto("spec.metadata", metadata, &mut violations);
    let found = violations.iter().cloned();
    found.map(|Violation { field, description }| Excess { field, description }).collect()
}

/// Returns the violations that are found before decoding.
fn scan(message: &[u8]) -> Vec<Excess> {
    match wire::scan(&UploadFileRequest::full_name(), message, &LIMITS) {
        Ok(_) => Vec::new(),
        Err(Refusal::TooMuch(excesses)) => excesses,
        Err(malformed) => panic!("{malformed:?}"),
    }
}

fn is_of_size(excess: &Excess) -> bool {
    excess.description.starts_with("must have at most")
}

fn encode_spec(metadata: Struct) -> Vec<u8> {
    let spec = UploadSpec { metadata: Some(metadata), ..UploadSpec::default() };
    UploadFileRequest { message: Some(Content::Spec(spec)) }.encode_to_vec()
}

fn decode_metadata(message: &[u8]) -> Struct {
    match UploadFileRequest::decode(message).unwrap().message {
        Some(Content::Spec(spec)) => spec.metadata.unwrap(),
        message => panic!("{message:?}"),
    }
}

fn texts() -> impl Strategy<Value = String> {
    proptest::collection::vec(any::<char>(), 0..8).prop_map(String::from_iter)
}

fn of_kind(kind: Kind) -> Wire {
    Wire { kind: Some(kind) }
}

fn list(values: Vec<Wire>) -> Wire {
    of_kind(Kind::ListValue(ListValue { values }))
}

/// Values of any form. One number in a few is not finite.
fn values() -> impl Strategy<Value = Wire> {
    let numbers = prop_oneof![9 => any::<f64>(), 1 => Just(f64::NAN), 1 => Just(f64::INFINITY)];
    let leaf = prop_oneof![
        Just(Wire { kind: None }),
        Just(of_kind(Kind::NullValue(0))),
        any::<bool>().prop_map(|value| of_kind(Kind::BoolValue(value))),
        numbers.prop_map(|value| of_kind(Kind::NumberValue(value))),
        texts().prop_map(|value| of_kind(Kind::StringValue(value))),
    ];
    leaf.prop_recursive(6, 48, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(list),
            proptest::collection::btree_map(texts(), inner, 0..6)
                .prop_map(|fields| of_kind(Kind::StructValue(Struct { fields }))),
        ]
    })
}

/// Metadata of any form, often close to a limit or to half of it.
fn structs() -> impl Strategy<Value = Struct> {
    let fields = proptest::collection::btree_map(texts(), values(), 0..5);
    let elements = prop_oneof![2 => Just(0), 1 => 480..510_usize, 2 => 985..1_005_usize];
    let bytes = prop_oneof![2 => Just(0), 1 => 8_000..8_300_usize, 2 => 16_200..16_400_usize];
    // Less than the depth at which the scan ends.
    let depth = prop_oneof![1 => Just(0), 2 => 10..24_usize];
    (fields, elements, bytes, depth, any::<bool>()).prop_map(
        |(mut fields, elements, bytes, depth, is_list)| {
            let nested = (0..depth).fold(Wire { kind: None }, |inner, _| match is_list {
                true => list(vec![inner]),
                false => of_kind(Kind::StructValue(Struct {
                    fields: [("k".to_owned(), inner)].into_iter().collect(),
                })),
            });
            fields.insert("nested".to_owned(), nested);
            fields.insert("many".to_owned(), list(vec![Wire { kind: None }; elements]));
            fields.insert("large".to_owned(), of_kind(Kind::StringValue("x".repeat(bytes))));
            Struct { fields }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn scan_and_validation_find_the_same(metadata in structs()) {
        let validated = validate(metadata.clone());
        // Numbers without a JSON form are left to validation, unless a size is refused.
        let expected = if validated.iter().any(is_of_size) { validated } else { Vec::new() };
        prop_assert_eq!(scan(&encode_spec(metadata)), expected);
    }

    #[test]
    fn message_that_the_scan_admits_is_within_the_limits(first in structs(), second in structs()) {
        // Both are merged into one, and keys of the second replace those of the first.
        let message = [encode_spec(first), encode_spec(second)].concat();
        if scan(&message).is_empty() {
            prop_assert!(!validate(decode_metadata(&message)).iter().any(is_of_size));
        }
    }
}
