//! The description of the server equals its configuration and its behavior.

use prost::Message;
use strongroom::proto::v1::{
    BatchDeleteFilesRequest, BatchGetFilesRequest, EntityRef, GetFileRequest, GetQuotaRequest,
    GetServiceInfoRequest, ListFilesRequest, ServiceInfo, ServiceLimits, UploadPartRequest, UploadSpec,
};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use crate::harness::{
    Caller, direct_test, service_test, service_test_with, spec, upload_messages, violated_fields,
};

const RANDOM: &str = "0198c0de-7777-7000-8000-00000000abcd";

async fn service_info(caller: &Caller) -> ServiceInfo {
    let response = caller.service_info.clone().get_service_info(GetServiceInfoRequest {}).await;
    response.unwrap().into_inner().service_info.unwrap()
}

async fn limits(caller: &Caller) -> ServiceLimits {
    service_info(caller).await.limits.unwrap()
}

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

#[test]
fn limits_equal_the_configuration() {
    service_test_with(
        |config| {
            config.uploads.chunk_size_max_bytes = 70_000;
            config.uploads.part_size_bytes = 80_000;
            config.uploads.idle_timeout_seconds = 11;
            config.uploads.lease_seconds = 12;
            config.downloads.idle_timeout_seconds = 13;
            config.watches.heartbeat_seconds = 14;
            config.server.message_size_max_bytes = 90_000;
            config.server.http2.header_list_size_max_bytes = 15_000;
            config.lists.page_size_default = 3;
            config.lists.page_size_max = 7;
            config.retention.idempotency_hours = 5;
            config.retention.event_days = 6;
        },
        |s| async move {
            let expected = ServiceLimits {
                chunk_size_max_bytes: 70_000,
                part_size_bytes: 80_000,
                part_count_max: 10_000,
                direct_part_count_max: 1_000,
                message_size_max_bytes: 90_000,
                upload_part_message_size_max_bytes: 81_024,
                small_message_size_max_bytes: 65_536,
                header_list_size_max_bytes: 15_000,
                page_size_default: 3,
                page_size_max: 7,
                page_size_max_bytes: 3_145_728,
                metadata_size_max_bytes: 16_384,
                metadata_element_count_max: 1_000,
                metadata_depth_max: 16,
                tag_count_max: 50,
                tag_length_max_characters: 64,
                attachment_count_max: 100,
                batch_get_file_count_max: 100,
                batch_delete_file_count_max: 100,
                find_imported_key_count_max: 100,
                upload_idle_timeout: seconds(11),
                upload_lifetime: seconds(12),
                download_idle_timeout: seconds(13),
                watch_heartbeat_interval: seconds(14),
                request_id_retention: seconds(5 * 3_600),
                event_retention: seconds(6 * 86_400),
            };
            assert_eq!(limits(&s.alice()).await, expected);
            let by_operator = service_info(&s.operator()).await;
            assert_eq!(by_operator.limits, Some(expected));
            assert_eq!(by_operator.version, env!("CARGO_PKG_VERSION"));
        },
    );
}

#[test]
fn only_provided_features_are_reported() {
    service_test(|s| async move {
        let features = service_info(&s.alice()).await.features.unwrap();
        let all = [features.direct_upload, features.edge, features.tus, features.scanning, features.variants];
        assert_eq!(all, [false; 5]);
        let spec = UploadSpec { size_bytes: Some(1), ..spec("a") };
        assert!(s.alice().create_direct_upload(spec).await.is_err());
    });
    direct_test(|s| async move {
        assert!(service_info(&s.alice()).await.features.unwrap().direct_upload);
        let spec = UploadSpec { size_bytes: Some(1), ..spec("a") };
        let direct = s.alice().create_direct_upload(spec).await.unwrap();
        s.alice().cancel_upload(&direct.id).await.unwrap();
    });
}

/// Asserts that a message was refused for its size before it was decoded.
fn assert_too_large(status: &Status) {
    assert!(matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted), "{status:?}");
}

/// Returns a text such that a message with only this text has the given encoded size.
fn text_for(message_bytes: i64, encoded_len: impl Fn(String) -> usize) -> String {
    let bytes = usize::try_from(message_bytes).unwrap();
    let overhead = encoded_len("x".repeat(bytes)) - bytes;
    "x".repeat(bytes - overhead)
}

#[test]
fn message_beyond_its_limit_is_refused() {
    service_test(|s| async move {
        let (alice, limits) = (s.alice(), limits(&s.alice()).await);
        for (size, is_accepted) in
            [(limits.message_size_max_bytes, true), (limits.message_size_max_bytes + 1, false)]
        {
            let file_id = text_for(size, |file_id| GetFileRequest { file_id }.encoded_len());
            let status = alice.files.clone().get_file(GetFileRequest { file_id }).await.unwrap_err();
            match is_accepted {
                true => assert_eq!(violated_fields(&status), ["file_id"]),
                false => assert_too_large(&status),
            }
        }
        let max = limits.small_message_size_max_bytes;
        for (size, is_accepted) in [(max, true), (max + 1, false)] {
            let tenant_id = text_for(size, |tenant_id| GetQuotaRequest { tenant_id }.encoded_len());
            let status = alice.quotas.clone().get_quota(GetQuotaRequest { tenant_id }).await.unwrap_err();
            match is_accepted {
                true => assert_eq!(violated_fields(&status), ["tenant_id"]),
                false => assert_too_large(&status),
            }
        }
    });
}

#[test]
fn part_message_beyond_its_limit_is_refused() {
    service_test_with(
        |config| config.uploads.part_size_bytes = 1024 * 1024,
        |s| async move {
            let (alice, limits) = (s.alice(), limits(&s.alice()).await);
            let max = limits.upload_part_message_size_max_bytes;
            for (size, is_accepted) in [(max, true), (max + 1, false)] {
                let upload_id = text_for(size, |upload_id| {
                    UploadPartRequest { upload_id, ..Default::default() }.encoded_len()
                });
                let request = UploadPartRequest { upload_id, ..Default::default() };
                let status = alice.uploads.clone().upload_part(request).await.unwrap_err();
                match is_accepted {
                    true => assert_eq!(violated_fields(&status), ["upload_id"]),
                    false => assert_too_large(&status),
                }
            }
        },
    );
}

#[test]
fn headers_beyond_their_limit_are_refused() {
    service_test(|s| async move {
        let (alice, limits) = (s.alice(), limits(&s.alice()).await);
        let max = usize::try_from(limits.header_list_size_max_bytes).unwrap();
        // The other headers, such as the token, take less than 4 KiB.
        for (size, is_accepted) in [(max - 4_096, true), (max, false)] {
            let mut request = Request::new(GetServiceInfoRequest {});
            request.metadata_mut().insert("x-padding", "x".repeat(size).parse().unwrap());
            let response = alice.service_info.clone().get_service_info(request).await;
            match response {
                Ok(_) => assert!(is_accepted, "{size} bytes"),
                Err(status) => {
                    assert!(!is_accepted, "{size} bytes: {status:?}");
                    assert_too_large(&status);
                    let info = status.get_details_error_info().unwrap();
                    assert_eq!(info.metadata["limit_bytes"], max.to_string());
                }
            }
        }
    });
}

#[test]
fn chunk_and_part_beyond_their_limit_are_refused() {
    service_test_with(
        |config| config.uploads.chunk_size_max_bytes = 70_000,
        |s| async move {
            let (alice, limits) = (s.alice(), limits(&s.alice()).await);
            let chunk = usize::try_from(limits.chunk_size_max_bytes).unwrap();
            let content = vec![7; chunk + 1];
            alice.send_messages(upload_messages(spec("a"), &content[..chunk], chunk)).await.unwrap();
            let refused =
                alice.send_messages(upload_messages(spec("b"), &content, chunk + 1)).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");

            let part = usize::try_from(limits.part_size_bytes).unwrap();
            let upload = alice.create_upload(spec("c")).await.unwrap().id;
            assert_eq!(
                alice.upload_part(&upload, 0, &content[..part + 1]).await.unwrap_err().code(),
                Code::InvalidArgument
            );
            alice.upload_part(&upload, 0, &content[..part]).await.unwrap();
            alice.cancel_upload(&upload).await.unwrap();
        },
    );
}

#[test]
fn page_and_batch_beyond_their_limit_are_shortened_or_refused() {
    service_test_with(
        |config| (config.lists.page_size_default, config.lists.page_size_max) = (2, 3),
        |s| async move {
            let (alice, limits) = (s.alice(), limits(&s.alice()).await);
            for name in ["a", "b", "c", "d"] {
                alice.upload(spec(name), b"").await.unwrap();
            }
            for (page_size, expected) in [(0, limits.page_size_default), (1_000, limits.page_size_max)] {
                let request = ListFilesRequest { page_size, ..ListFilesRequest::default() };
                assert_eq!(alice.list(request).await.unwrap().files.len() as i64, expected);
            }

            let ids = |count: i64| vec![RANDOM.to_owned(); usize::try_from(count).unwrap()];
            let max = limits.batch_get_file_count_max;
            let batch = |file_ids| BatchGetFilesRequest { file_ids, ..Default::default() };
            alice.files.clone().batch_get_files(batch(ids(max))).await.unwrap();
            let refused = alice.files.clone().batch_get_files(batch(ids(max + 1))).await.unwrap_err();
            assert_eq!(violated_fields(&refused), ["file_ids"]);
            let request = BatchDeleteFilesRequest {
                file_ids: ids(limits.batch_delete_file_count_max + 1),
                ..Default::default()
            };
            let refused = alice.files.clone().batch_delete_files(request).await.unwrap_err();
            assert_eq!(violated_fields(&refused), ["file_ids"]);
        },
    );
}

#[test]
fn tags_and_attachments_beyond_their_limit_are_refused() {
    service_test(|s| async move {
        let (alice, limits) = (s.alice(), limits(&s.alice()).await);
        let tags = |count: i64| (0..count).map(|number| number.to_string()).collect::<Vec<_>>();
        let long = |characters: i64| vec!["é".repeat(usize::try_from(characters).unwrap())];
        let attachments = |count: i64| {
            let entity = |number: i64| EntityRef {
                r#type: "class".into(),
                id: number.to_string(),
                field: String::new(),
            };
            (0..count).map(entity).collect::<Vec<_>>()
        };
        for over in [0, 1] {
            for (spec, field) in [
                (UploadSpec { tags: tags(limits.tag_count_max + over), ..spec("a") }, "spec.tags"),
                (
                    UploadSpec { tags: long(limits.tag_length_max_characters + over), ..spec("a") },
                    "spec.tags[0]",
                ),
                (
                    UploadSpec { attachments: attachments(limits.attachment_count_max + over), ..spec("a") },
                    "spec.attachments",
                ),
            ] {
                match (over, alice.upload(spec, b"").await) {
                    (0, response) => drop(response.unwrap()),
                    (_, response) => assert_eq!(violated_fields(&response.unwrap_err()), [field]),
                }
            }
        }
    });
}
