//! Tests of the scan, with messages of the contract.

use std::collections::BTreeMap;

use prost::Name as _;
use prost_types::{ListValue, Struct, Value as Json, value::Kind};

use super::*;
use crate::proto::v1::{
    EntityRef, UploadChunk, UploadFileRequest, UploadSpec, WatchFilesRequest, WatchFilter,
    upload_file_request::Message,
};

const LIMITS: StructLimits =
    StructLimits { encoded_bytes_max: 16 * 1024, element_count_max: 1_000, depth_max: 16 };

fn scan_message<M: prost::Message + prost::Name>(message: &M) -> Result<Weight, Refusal> {
    scan(&M::full_name(), &message.encode_to_vec(), &LIMITS)
}

fn spec_message(spec: UploadSpec) -> UploadFileRequest {
    UploadFileRequest { message: Some(Message::Spec(spec)) }
}

fn list(values: Vec<Json>) -> Json {
    Json { kind: Some(Kind::ListValue(ListValue { values })) }
}

fn metadata(value: Json) -> UploadFileRequest {
    let metadata = Struct { fields: BTreeMap::from([("k".to_owned(), value)]) };
    spec_message(UploadSpec { metadata: Some(metadata), ..UploadSpec::default() })
}

/// The fields of a refusal, each with its description.
fn refused(scanned: Result<Weight, Refusal>) -> Vec<(String, String)> {
    match scanned.unwrap_err() {
        Refusal::TooMuch(excesses) => {
            excesses.into_iter().map(|excess| (excess.field, excess.description)).collect()
        }
        refusal => panic!("{refusal:?}"),
    }
}

/// The descriptions of a refusal of metadata.
fn refused_metadata(scanned: Result<Weight, Refusal>) -> Vec<String> {
    let described = refused(scanned).into_iter().map(|(field, description)| {
        assert_eq!(field, "spec.metadata");
        description
    });
    described.collect()
}

/// A list in lists, of this depth.
fn nested_lists(depth: usize) -> Json {
    (0..depth).fold(Json { kind: None }, |inner, _| list(vec![inner]))
}

#[test]
fn every_message_of_the_contract_is_known() {
    for name in SCHEMA.by_name.keys() {
        assert_eq!(scan(name, b"", &LIMITS), Ok(Weight::default()), "{name}");
    }
    assert!(SCHEMA.by_name.contains_key(&UploadFileRequest::full_name()));
    assert!(scan("unknown.Message", b"", &LIMITS).is_err());
}

#[test]
fn million_empty_attachments_are_refused_by_their_number() {
    let attachments = vec![EntityRef::default(); 1_000_000];
    let spec = UploadSpec { attachments, ..UploadSpec::default() };
    let refused = refused(scan_message(&spec_message(spec)));
    let [(field, description)] = refused.as_slice() else { panic!("{refused:?}") };
    assert_eq!(field, "spec.attachments");
    assert!(description.contains("12000"), "{description}");
}

#[test]
fn struct_is_refused_just_above_its_limits() {
    let fits = [list(vec![Json { kind: None }; 999]), nested_lists(15)];
    assert!(fits.into_iter().all(|value| scan_message(&metadata(value)).is_ok()));
    let elements = list(vec![Json { kind: None }; 1_000]);
    let expected = "must have at most 1000 elements, has 1001";
    assert_eq!(refused_metadata(scan_message(&metadata(elements))), [expected]);
    let expected = "must have at most 16 levels of nesting, has 17";
    assert_eq!(refused_metadata(scan_message(&metadata(nested_lists(16)))), [expected]);
    let text = |length| metadata(Json { kind: Some(Kind::StringValue("x".repeat(length))) });
    // The entry, its key and its value have further bytes.
    let further_bytes = 12;
    assert!(scan_message(&text(16 * 1024 - further_bytes)).is_ok());
    let expected = "must have at most 16384 encoded bytes, has 16385";
    assert_eq!(refused_metadata(scan_message(&text(16 * 1024 - further_bytes + 1))), [expected]);
}

#[test]
fn scan_of_a_huge_struct_stops_early() {
    let elements = vec![Json { kind: None }; 1_000_000];
    let refused = refused_metadata(scan_message(&metadata(list(elements))));
    assert!(refused[0].starts_with("must have at most 16384 encoded bytes, has 20000"), "{refused:?}");
    assert_eq!(refused[1..], ["must have at most 1000 elements, has more than 12000"]);
    // Each list is two messages inside the previous one, and the scan ends at 100 messages.
    let refused = refused_metadata(scan_message(&metadata(nested_lists(200))));
    assert_eq!(refused, ["must have at most 16 levels of nesting, has more than 49"]);
}

#[test]
fn occurrences_of_a_struct_count_together() {
    let half = metadata(list(vec![Json { kind: None }; 600])).encode_to_vec();
    let scan = |bytes: &[u8]| scan(&UploadFileRequest::full_name(), bytes, &LIMITS);
    assert!(scan(&half).is_ok());
    let merged = [half.clone(), half].concat();
    assert_eq!(refused_metadata(scan(&merged)), ["must have at most 1000 elements, has 1202"]);
}

#[test]
fn number_without_a_json_form_is_reported_with_an_excess() {
    let nan = Json { kind: Some(Kind::NumberValue(f64::NAN)) };
    assert!(scan_message(&metadata(nan.clone())).is_ok(), "validation reports it with all other fields");
    let refused = refused_metadata(scan_message(&metadata(list(vec![nan; 1_000]))));
    let expected = ["must have at most 1000 elements, has 1001", "must not contain infinite numbers or NaN"];
    assert_eq!(refused, expected);
}

#[test]
fn largest_valid_spec_is_admitted() {
    let attachments = vec![EntityRef { id: "x".repeat(255), ..EntityRef::default() }; 100];
    let spec = UploadSpec { attachments, tags: vec!["x".repeat(64); 50], ..UploadSpec::default() };
    let weight = scan_message(&spec_message(spec)).unwrap();
    assert_eq!(weight.value_count, 150);
    assert_eq!(weight.decoded_bytes, 150 * VALUE_BYTES + 2 * (100 * 255 + 50 * 64));
    let weight = scan_message(&metadata(list(vec![Json { kind: None }; 999]))).unwrap();
    assert_eq!((weight.value_count, weight.decoded_bytes), (0, ENTRY_BYTES + 999 * VALUE_BYTES + 2));
}

#[test]
fn data_of_chunks_is_not_counted() {
    let chunk = UploadChunk { offset: 0, data: vec![7; 1_000].into(), crc32c: Some(1) };
    let message = UploadFileRequest { message: Some(Message::Chunk(chunk)) };
    assert_eq!(scan_message(&message), Ok(Weight::default()));
}

#[test]
fn packed_values_are_counted() {
    let filter = WatchFilter { kinds: vec![1; 500], ..WatchFilter::default() };
    let request = WatchFilesRequest { filter: Some(filter), ..WatchFilesRequest::default() };
    assert_eq!(scan_message(&request).unwrap().value_count, 500);
}

#[test]
fn malformed_message_is_refused() {
    let name = UploadFileRequest::full_name();
    for bytes in [&[0x0A, 0x05][..], &[0x0B], &[0x80; 11], &[0x09, 1, 2]] {
        assert!(matches!(scan(&name, bytes, &LIMITS), Err(Refusal::Malformed(_))), "{bytes:?}");
    }
    // A message deeper than prost accepts is left to prost.
    let deep = (0..200).fold(Vec::new(), |inner: Vec<u8>, _| {
        let mut list = vec![0x0A];
        prost::encoding::encode_varint(inner.len() as u64, &mut list);
        list.extend(inner);
        let mut value = vec![0x32];
        prost::encoding::encode_varint(list.len() as u64, &mut value);
        value.extend(list);
        value
    });
    assert!(scan("google.protobuf.Value", &deep, &LIMITS).is_ok());
}
