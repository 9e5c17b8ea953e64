//! Tests of the scan, with messages of the contract.

use std::collections::BTreeMap;

use prost::Name as _;
use prost_types::{ListValue, Struct, Value as Json, value::Kind};

use super::*;
use crate::proto::v1::{
    EntityRef, UploadChunk, UploadFileRequest, UploadSpec, WatchFilesRequest, WatchFilter,
    upload_file_request::Message,
};

fn scan_message<M: prost::Message + prost::Name>(message: &M) -> Result<Weight, Refusal> {
    scan(&M::full_name(), &message.encode_to_vec())
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

/// The field and the description of a refusal.
fn refused(scanned: Result<Weight, Refusal>) -> (String, String) {
    match scanned.unwrap_err() {
        Refusal::TooMuch { field, description } => (field, description),
        refusal => panic!("{refusal:?}"),
    }
}

#[test]
fn every_message_of_the_contract_is_known() {
    for name in SCHEMA.by_name.keys() {
        assert_eq!(scan(name, b""), Ok(Weight::default()), "{name}");
    }
    assert!(SCHEMA.by_name.contains_key(&UploadFileRequest::full_name()));
    assert!(scan("unknown.Message", b"").is_err());
}

#[test]
fn million_empty_attachments_are_refused_by_their_number() {
    let attachments = vec![EntityRef::default(); 1_000_000];
    let spec = UploadSpec { attachments, ..UploadSpec::default() };
    let (field, description) = refused(scan_message(&spec_message(spec)));
    assert_eq!(field, "spec.attachments");
    assert!(description.contains("12000"), "{description}");
}

#[test]
fn large_struct_is_refused_by_its_elements() {
    let elements = vec![Json { kind: None }; STRUCT_ELEMENTS_MAX];
    let (field, description) = refused(scan_message(&metadata(list(elements))));
    assert_eq!(field, "spec.metadata");
    assert_eq!(description, "must have at most 1000 elements, has more than 4000");
    let text = Json { kind: Some(Kind::StringValue("x".repeat(STRUCT_BYTES_MAX))) };
    let (field, description) = refused(scan_message(&metadata(text)));
    assert_eq!(field, "spec.metadata");
    assert!(description.starts_with("must have at most 16384 encoded bytes, has 65"), "{description}");
}

#[test]
fn largest_valid_spec_is_admitted() {
    let attachments = vec![EntityRef { id: "x".repeat(255), ..EntityRef::default() }; 100];
    let spec = UploadSpec { attachments, tags: vec!["x".repeat(64); 50], ..UploadSpec::default() };
    let weight = scan_message(&spec_message(spec)).unwrap();
    assert_eq!(weight.value_count, 150);
    assert_eq!(weight.decoded_bytes, 150 * VALUE_BYTES + 2 * (100 * 255 + 50 * 64));
    let weight = scan_message(&metadata(list(vec![Json { kind: None }; 999]))).unwrap();
    assert_eq!((weight.value_count, weight.decoded_bytes), (1_000, ENTRY_BYTES + 999 * VALUE_BYTES + 2));
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
        assert!(matches!(scan(&name, bytes), Err(Refusal::Malformed(_))), "{bytes:?}");
    }
    // A struct deeper than prost accepts is left to prost.
    let deep = (0..200).fold(Vec::new(), |inner: Vec<u8>, _| {
        let mut list = vec![0x0A];
        prost::encoding::encode_varint(inner.len() as u64, &mut list);
        list.extend(inner);
        let mut value = vec![0x32];
        prost::encoding::encode_varint(list.len() as u64, &mut value);
        value.extend(list);
        value
    });
    assert!(scan("google.protobuf.Value", &deep).is_ok());
}
