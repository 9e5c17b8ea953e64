//! Requests that are refused before a use case sees them. Each has an `ErrorInfo`, for one unary RPC and for
//! `UploadFile`. They are sent as raw HTTP/2 requests, because no gRPC client creates them.

use std::io::Write as _;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http_body_util::{BodyExt, Full};
use prost::Message as _;
use strongroom::proto::v1::{
    EntityRef, GetFileRequest, ListFilesRequest, UploadChunk, UploadFileRequest, UploadSpec,
    upload_file_request::Message,
};
use tonic::{Code, Status, body::Body, transport::Channel};
use tonic_types::StatusExt;
use tower::Service as _;

use crate::harness::{Caller, Service, file_id, service_test, service_test_with, spec, spec_message};

const UNARY: &str = "/strongroom.v1.FileService/GetFile";
const UPLOAD: &str = "/strongroom.v1.FileService/UploadFile";

/// The limit for messages that `harness` does not change: `server.message_size_max_bytes`.
const MESSAGE_BYTES_MAX: usize = 2_162_688;

/// Returns a gRPC message: a flag, a length and the bytes.
fn frame(flag: u8, message: &[u8]) -> Vec<u8> {
    [&[flag], (message.len() as u32).to_be_bytes().as_slice(), message].concat()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Sends bytes as the body of a call, and returns the status and the messages of the response.
async fn send(
    channel: &Channel,
    caller: &Caller,
    path: &str,
    encoding: Option<&str>,
    body: Vec<u8>,
) -> (Status, Bytes) {
    let mut request = http::Request::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {}", caller.token));
    if let Some(encoding) = encoding {
        request = request.header("grpc-encoding", encoding);
    }
    let request = request.body(Body::new(Full::new(Bytes::from(body)))).unwrap();
    let mut channel = channel.clone();
    std::future::poll_fn(|context| channel.poll_ready(context)).await.unwrap();
    let response = channel.call(request).await.unwrap();
    assert!(response.headers().contains_key("call-id"), "{path}");
    if let Some(status) = Status::from_header_map(response.headers()) {
        return (status, Bytes::new());
    }
    let collected = response.into_body().collect().await.unwrap();
    let status = Status::from_header_map(collected.trailers().unwrap()).unwrap();
    (status, collected.to_bytes())
}

/// Sends a broken request, and checks code, reason and call id of its error.
async fn refused(
    s: &Service,
    path: &str,
    encoding: Option<&str>,
    body: Vec<u8>,
    expected: (Code, &str),
) -> Status {
    let (status, _) = send(&s.channel, &s.alice(), path, encoding, body).await;
    let info = status.get_details_error_info().unwrap_or_else(|| panic!("{path}: {status:?}"));
    assert_eq!((status.code(), info.reason.as_str()), expected, "{path}: {status:?}");
    assert_eq!(info.domain, "strongroom");
    assert!(!info.metadata["call_id"].is_empty());
    status
}

fn metadata(status: &Status, key: &str) -> String {
    status.get_details_error_info().unwrap().metadata[key].clone()
}

/// Returns a spec, followed by bytes that break the stream.
fn after_spec(broken: Vec<u8>) -> Vec<u8> {
    [frame(0, &spec_message(spec("a")).encode_to_vec()), broken].concat()
}

#[test]
fn too_large_message_has_both_sizes() {
    service_test(|s| async move {
        let expected = (Code::ResourceExhausted, "MESSAGE_TOO_LARGE");
        let message = frame(0, &vec![0; MESSAGE_BYTES_MAX + 1]);
        for (path, body) in
            [(UNARY, message.clone()), (UPLOAD, message.clone()), (UPLOAD, after_spec(message))]
        {
            let status = refused(&s, path, None, body, expected).await;
            assert_eq!(metadata(&status, "size_bytes"), (MESSAGE_BYTES_MAX + 1).to_string());
            assert_eq!(metadata(&status, "limit_bytes"), MESSAGE_BYTES_MAX.to_string());
        }
        s.assert_nothing_is_left().await;
    });
}

#[test]
fn malformed_message_is_an_invalid_argument() {
    service_test(|s| async move {
        let expected = (Code::InvalidArgument, "MALFORMED_MESSAGE");
        // Field 1 is a string or a message in both requests: field 1, two bytes that are not UTF-8.
        let not_utf8 = [0x0A, 0x02, 0xFF, 0xFE];
        let wrong_wire_type = [0x08, 0x01];
        let truncated = &frame(0, &[0x0A; 20])[..10];
        let broken = [
            frame(0, &not_utf8),
            frame(0, &wrong_wire_type),
            truncated.to_vec(),
            // Flags other than 0 and 1, and a compressed message without an encoding.
            frame(2, b""),
            frame(1, b"x"),
        ];
        for body in broken {
            refused(&s, UNARY, None, body.clone(), expected).await;
            refused(&s, UPLOAD, None, body.clone(), expected).await;
            refused(&s, UPLOAD, None, after_spec(body), expected).await;
        }
        // A unary call without a message.
        refused(&s, UNARY, None, Vec::new(), expected).await;
        s.assert_nothing_is_left().await;
    });
}

#[test]
fn too_many_values_are_refused_before_they_are_decoded() {
    service_test(|s| async move {
        let expected = (Code::InvalidArgument, "INVALID_FIELD");
        let spec = UploadSpec { attachments: vec![EntityRef::default()], ..UploadSpec::default() };
        let spec = spec.encode_to_vec().repeat(1_000_000);
        let message = [vec![0x0A], length_prefixed(&spec)].concat();
        let create = "/strongroom.v1.UploadService/CreateUpload";
        for (path, body) in [(UPLOAD, frame(0, &message)), (create, frame(0, &message))] {
            let status = refused(&s, path, None, body, expected).await;
            let violation = status.get_details_bad_request().unwrap().field_violations.remove(0);
            assert_eq!(violation.field, "spec.attachments");
            assert!(violation.description.contains("at most 12000 values"), "{violation:?}");
        }
        s.assert_nothing_is_left().await;
    });
}

#[test]
fn too_deep_metadata_is_refused_by_its_field() {
    service_test(|s| async move {
        // Deeper than any decoder accepts.
        let nested = (0..200).fold(Vec::new(), |inner, _| {
            let value = [vec![0x2A], length_prefixed(&inner)].concat();
            let field = [vec![0x0A], length_prefixed(b"k"), vec![0x12], length_prefixed(&value)].concat();
            [vec![0x0A], length_prefixed(&field)].concat()
        });
        let mut spec = Vec::new();
        prost::encoding::encode_key(metadata_tag(), prost::encoding::WireType::LengthDelimited, &mut spec);
        spec.extend(length_prefixed(&nested));
        let message = [vec![0x0A], length_prefixed(&spec)].concat();
        for path in [UPLOAD, "/strongroom.v1.UploadService/CreateUpload"] {
            let expected = (Code::InvalidArgument, "INVALID_FIELD");
            let status = refused(&s, path, None, frame(0, &message), expected).await;
            let violations = status.get_details_bad_request().unwrap().field_violations;
            assert_eq!(violations[0].field, "spec.metadata");
            let description = &violations[0].description;
            assert_eq!(description, "must have at most 16 levels of nesting, has more than 33");
        }
        s.assert_nothing_is_left().await;
    });
}

fn length_prefixed(bytes: &[u8]) -> Vec<u8> {
    let mut prefixed = Vec::new();
    prost::encoding::encode_varint(bytes.len() as u64, &mut prefixed);
    prefixed.extend_from_slice(bytes);
    prefixed
}

/// Returns the field number of `UploadSpec.metadata`.
fn metadata_tag() -> u32 {
    let set = prost_types::FileDescriptorSet::decode(strongroom::proto::DESCRIPTOR_SET).unwrap();
    let mut messages = set.file.iter().flat_map(|file| &file.message_type);
    let spec = messages.find(|message| message.name() == "UploadSpec").unwrap();
    spec.field.iter().find(|field| field.name() == "metadata").unwrap().number() as u32
}

#[test]
fn unsupported_encoding_lists_the_supported_ones() {
    service_test(|s| async move {
        let expected = (Code::Unimplemented, "ENCODING_UNSUPPORTED");
        let message = frame(1, b"anything");
        for (path, encoding, supported) in
            [(UNARY, "zstd", "gzip,identity"), (UPLOAD, "zstd", "identity"), (UPLOAD, "gzip", "identity")]
        {
            let status = refused(&s, path, Some(encoding), message.clone(), expected).await;
            assert_eq!(metadata(&status, "supported_encodings"), supported, "{path} {encoding}");
            let header = status.metadata().get("grpc-accept-encoding").unwrap();
            assert_eq!(header.to_str().unwrap(), supported);
        }
    });
}

#[test]
fn gzip_of_a_unary_request_is_accepted() {
    service_test(|s| async move {
        let alice = s.alice();
        let file_id = file_id(&alice.upload(spec("a"), b"bytes").await.unwrap());
        let request = GetFileRequest { file_id: file_id.clone() };
        let body = frame(1, &gzip(&request.encode_to_vec()));
        let (status, response) = send(&s.channel, &alice, UNARY, Some("gzip"), body).await;
        assert_eq!(status.code(), Code::Ok, "{status:?}");
        assert!(response.windows(file_id.len()).any(|window| window == file_id.as_bytes()));
    });
}

#[test]
fn gzip_bomb_is_refused_at_the_message_limit() {
    service_test(|s| async move {
        let expected = (Code::ResourceExhausted, "MESSAGE_TOO_LARGE");
        let bomb = |bytes| {
            let request = ListFilesRequest { page_token: "x".repeat(bytes), ..ListFilesRequest::default() };
            frame(1, &gzip(&request.encode_to_vec()))
        };
        let files = "/strongroom.v1.FileService/ListFiles";
        let status = refused(&s, files, Some("gzip"), bomb(64 << 20), expected).await;
        assert_eq!(metadata(&status, "limit_bytes"), MESSAGE_BYTES_MAX.to_string());
        let quotas = "/strongroom.v1.QuotaService/GetQuota";
        let status = refused(&s, quotas, Some("gzip"), bomb(70_000), expected).await;
        assert_eq!(metadata(&status, "limit_bytes"), "65536");
    });
}

#[test]
fn unknown_method_and_service_are_unimplemented() {
    service_test_with(
        |config| config.server.reflection = false,
        |s| async move {
            let expected = (Code::Unimplemented, "METHOD_UNKNOWN");
            for path in [
                "/strongroom.v1.FileService/Unknown",
                "/unknown.v1.Service/Method",
                "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            ] {
                refused(&s, path, None, frame(0, b""), expected).await;
            }
        },
    );
}

#[test]
fn unknown_health_service_has_an_error_info() {
    service_test(|s| async move {
        let expected = (Code::NotFound, "NOT_FOUND");
        let name = [vec![0x0A], length_prefixed(b"nonsense")].concat();
        refused(&s, "/grpc.health.v1.Health/Check", None, frame(0, &name), expected).await;
    });
}

#[test]
fn request_beyond_the_limit_has_retry_info() {
    service_test_with(
        |config| config.server.requests_max = 0,
        |s| async move {
            let expected = (Code::ResourceExhausted, "OVERLOADED");
            for path in [UNARY, UPLOAD] {
                let status = refused(&s, path, None, frame(0, b""), expected).await;
                assert!(status.get_details_retry_info().is_some());
                assert_eq!(metadata(&status, "resource"), "requests");
            }
        },
    );
}

#[test]
fn chunk_at_the_message_limit_is_decoded() {
    service_test(|s| async move {
        let chunk = UploadChunk { offset: 0, data: Bytes::from(vec![0; 2 << 20]), crc32c: None };
        let chunk = UploadFileRequest { message: Some(Message::Chunk(chunk)) }.encode_to_vec();
        let (status, _) = send(&s.channel, &s.alice(), UPLOAD, None, after_spec(frame(0, &chunk))).await;
        assert_eq!(status.get_details_error_info().unwrap().reason, "UPLOAD_NOT_FINISHED");
    });
}
