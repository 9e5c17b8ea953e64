//! A file comes in: what is stored, what is recorded, and what is refused before a byte is kept.

use std::collections::BTreeMap;

use prost_types::{Struct, Timestamp, Value, value::Kind};
use strongroom::proto::v1::{EntityRef, FileState, Quota, ScanStatus, UploadSpec, Visibility, WarningCode};
use tonic::Code;
use tonic_types::StatusExt;

pub(crate) use crate::harness::pattern;
use crate::harness::{PART, file_id, reason, service_test, service_test_with, sha256, spec, violated_fields};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0";

#[test]
fn a_small_file_comes_back_byte_for_byte_with_everything_that_was_said_about_it() {
    service_test(|s| async move {
        let alice = s.alice();
        let told = UploadSpec {
            mime_type: "text/plain".into(),
            category: "report".into(),
            title: "Minutes".into(),
            description: "Of the meeting.\nOn two lines.".into(),
            tags: vec!["b".into(), "a".into(), "a".into()],
            metadata: Some(Struct {
                fields: [("page".to_owned(), Value { kind: Some(Kind::NumberValue(7.0)) })].into(),
            }),
            attachments: vec![EntityRef { r#type: "course".into(), id: "C-1".into(), field: "".into() }],
            ..spec("minutes.txt")
        };
        let data = b"We met, and we parted.";
        let answer = alice.upload(told.clone(), data).await.unwrap();
        let file = answer.file.clone().unwrap();
        assert_eq!((file.name.as_str(), file.original_name.as_str()), ("minutes.txt", "minutes.txt"));
        assert_eq!((file.mime_type.as_str(), file.declared_mime_type.as_str()), ("text/plain", "text/plain"));
        assert_eq!((file.size_bytes, file.sha256.clone()), (22, sha256(data)));
        assert_eq!((file.owner_id.as_str(), file.created_by.as_str()), ("alice", "alice"));
        assert_eq!((file.category.as_str(), file.title.as_str()), ("report", "Minutes"));
        assert_eq!((&file.description, &file.metadata), (&told.description, &told.metadata));
        assert_eq!(
            (file.tags.clone(), file.attachments.clone()),
            (vec!["a".into(), "b".into()], told.attachments)
        );
        assert_eq!(
            (file.state(), file.scan.unwrap().status()),
            (FileState::Available, ScanStatus::NotScanned)
        );
        assert_eq!((file.visibility(), file.version), (Visibility::Organization, 1));
        assert!(answer.warnings.is_empty(), "{:?}", answer.warnings);
        assert_eq!(answer.quota_state.unwrap().used_bytes, 22);
        assert_eq!(alice.get(&file.id).await.unwrap(), file);
        assert_eq!(alice.read(&file.id).await.unwrap(), data[..]);
    });
}

#[test]
fn a_file_of_every_size_around_a_part_comes_back_byte_for_byte() {
    service_test(|s| async move {
        let alice = s.alice();
        for size in [0, 1, PART - 1, PART, PART + 1, 2 * PART, 5 * PART + 17] {
            for is_told in [true, false] {
                let data = pattern(size);
                let told = UploadSpec {
                    size_bytes: is_told.then_some(size as i64),
                    ..spec(&format!("{size} {is_told}"))
                };
                let answer = alice.upload(told, &data).await.unwrap();
                let file = answer.file.unwrap();
                assert_eq!((file.size_bytes, file.sha256), (size as i64, sha256(&data)), "{size} {is_told}");
                assert_eq!(alice.read(&file.id).await.unwrap(), data, "{size} {is_told}");
            }
        }
    });
}

#[test]
fn names_of_any_language_are_kept_exactly_and_never_reach_a_storage_key() {
    service_test(|s| async move {
        let alice = s.alice();
        let names = [
            "Müller – Grüße (1).pdf",
            "报告 2026.docx",
            "../../etc/passwd",
            "..",
            "C:\\Users\\x\\y.txt",
            "'; DROP TABLE files; --",
            "%00%2e%2e%2f",
            "قائمة.txt",
            "👩‍👩‍👧 family.jpg",
            "e\u{301} is not \u{e9}",
            "$(rm -rf)`{}",
            " spaces around ",
        ];
        let mut keys = Vec::new();
        for name in names {
            let id = file_id(&alice.upload(spec(name), name.as_bytes()).await.unwrap());
            let file = alice.get(&id).await.unwrap();
            assert_eq!((file.name.as_str(), file.original_name.as_str()), (name, name));
            assert_eq!(alice.read(&id).await.unwrap(), name.as_bytes());
            keys = s.owner.texts("SELECT storage_key FROM blobs").await;
        }
        assert_eq!(keys.len(), names.len());
        let tenant = alice.tenant_id().await;
        for key in keys {
            let parts: Vec<&str> = key.split('/').collect();
            assert_eq!((parts[0], parts[1], parts[2]), ("live", tenant.as_str(), "media_resource"), "{key}");
            assert!(parts[3..6].iter().all(|part| part.bytes().all(|byte| byte.is_ascii_digit())), "{key}");
            assert_eq!((parts.len(), parts[6].len()), (7, 36), "{key}");
        }
    });
}

#[test]
fn the_type_is_read_from_the_bytes_and_recorded_beside_the_declared_one() {
    service_test(|s| async move {
        let alice = s.alice();
        let declared = |mime_type: &str| UploadSpec { mime_type: mime_type.into(), ..spec("picture") };
        let answer = alice.upload(declared("application/pdf"), PNG).await.unwrap();
        let file = answer.file.unwrap();
        assert_eq!(
            (file.mime_type.as_str(), file.declared_mime_type.as_str()),
            ("image/png", "application/pdf")
        );
        assert_eq!(answer.warnings.len(), 1);
        assert_eq!(answer.warnings[0].code(), WarningCode::TypeCorrected);

        let quiet = alice.upload(declared(""), PNG).await.unwrap();
        assert_eq!((quiet.file.unwrap().mime_type.as_str(), quiet.warnings.len()), ("image/png", 0));
        let unknown = alice.upload(declared(""), &[0, 255, 0, 1]).await.unwrap().file.unwrap();
        assert_eq!(unknown.mime_type, "application/octet-stream");
    });
}

#[test]
fn a_file_above_ten_mebibytes_is_stored_with_a_remark() {
    service_test(|s| async move {
        let answer = s.alice().upload(spec("large.bin"), &vec![0; 10 * 1024 * 1024 + 1]).await.unwrap();
        assert_eq!(
            answer.warnings.iter().map(|warning| warning.code()).collect::<Vec<_>>(),
            [WarningCode::LargeFile]
        );
    });
}

#[test]
fn everything_that_is_wrong_with_a_spec_is_reported_together() {
    service_test(|s| async move {
        let wrong = UploadSpec {
            name: "setup.EXE".into(),
            size_bytes: Some(-1),
            sha256: Some(vec![1, 2].into()),
            category: "nonsense".into(),
            title: "t".repeat(256),
            description: "d".repeat(4097),
            tags: vec!["ok".into(), "".into()],
            attachments: vec![EntityRef { r#type: "Not Good".into(), id: "".into(), field: "".into() }],
            expire_time: Some(Timestamp { seconds: 1, nanos: 0 }),
            retention_days: -1,
            request_id: "no uuid".into(),
            ..UploadSpec::default()
        };
        let refused = s.alice().upload(wrong, b"x").await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::InvalidArgument, "INVALID_FIELD"));
        let fields = violated_fields(&refused);
        for field in [
            "spec.name",
            "spec.size_bytes",
            "spec.sha256",
            "spec.category",
            "spec.title",
            "spec.description",
            "spec.tags[1]",
            "spec.attachments[0].type",
            "spec.attachments[0].id",
            "spec.expire_time",
            "spec.retention_days",
            "spec.request_id",
        ] {
            assert!(fields.iter().any(|named| named == field), "{field} is missing in {fields:?}");
        }
        s.assert_nothing_is_left().await;
    });
}

#[test]
fn a_name_needs_characters_and_none_that_control() {
    service_test(|s| async move {
        let alice = s.alice();
        for name in ["", "a\0b", "line\nbreak", &"x".repeat(256)] {
            let refused = alice.upload(spec(name), b"x").await.unwrap_err();
            assert_eq!(violated_fields(&refused), ["spec.name"], "{name:?}");
        }
        alice.upload(spec(&"ä".repeat(255)), b"x").await.unwrap();
    });
}

#[test]
fn blocked_extensions_depend_on_the_policy_of_the_tenant() {
    service_test(|s| async move {
        for (name, in_general, in_education) in [
            ("a.exe", false, false),
            ("a.tar.JS", false, false),
            ("a.zip", true, false),
            ("a.exe.txt", true, true),
        ] {
            for (caller, is_allowed) in [(s.alice(), in_general), (s.pupil(), in_education)] {
                let answer = caller.upload(spec(name), b"x").await;
                assert_eq!(answer.is_ok(), is_allowed, "{name} for {}", caller.identity.user);
            }
        }
    });
}

#[test]
fn a_file_larger_than_its_kind_may_be_is_refused_whether_or_not_it_says_so() {
    service_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        let limits = strongroom::proto::v1::FileSizeLimits { image_bytes: 1000, ..Default::default() };
        let quota = Quota { file_size_max_bytes: Some(limits), ..Quota::default() };
        ada.update_quota("", quota, &["file_size_max_bytes.image_bytes"]).await.unwrap();
        let mut image = PNG.to_vec();
        image.resize(1001, 0);
        for size_bytes in [None, Some(1001)] {
            let refused = alice.upload(UploadSpec { size_bytes, ..spec("a.png") }, &image).await.unwrap_err();
            assert_eq!(
                (refused.code(), reason(&refused).as_str()),
                (Code::ResourceExhausted, "FILE_TOO_LARGE")
            );
            let details = refused.get_error_details();
            assert!(details.quota_failure().is_some() && details.retry_info().is_none());
        }
        s.assert_nothing_is_left().await;
        image.truncate(1000);
        alice.upload(spec("a.png"), &image).await.unwrap();
        alice.upload(spec("a.txt"), &vec![b'a'; 1001]).await.unwrap();
    });
}

#[test]
fn a_policy_that_demands_a_scan_is_not_answered_by_a_server_without_a_scanner() {
    service_test_with(
        |config| config.scanning.accept_unscanned = false,
        |s| async move {
            let refused = s.pupil().upload(spec("essay.txt"), b"x").await.unwrap_err();
            assert_eq!(
                (refused.code(), reason(&refused).as_str()),
                (Code::FailedPrecondition, "SCAN_REQUIRED")
            );
            s.assert_nothing_is_left().await;
            s.alice().upload(spec("a.txt"), b"x").await.unwrap();
        },
    );
}

#[test]
fn a_service_uploads_under_its_own_name_and_each_upload_leaves_its_traces() {
    service_test(|s| async move {
        let billing = s.billing();
        let id = file_id(&billing.upload(spec("invoice.txt"), b"42").await.unwrap());
        let rows = s
            .owner
            .rows(
                "SELECT actor_kind::int, actor_id FROM audit_entries WHERE file_id = $1::text::uuid",
                &[&id],
            )
            .await;
        let entries: Vec<(i32, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        assert_eq!(entries, [(2, "billing".to_owned())]);
        let kinds = s.owner.texts("SELECT format('%s v%s', kind, version) FROM events").await;
        assert_eq!(kinds, ["1 v1"]);
    });
}

#[test]
fn the_client_library_uploads_from_a_reader_and_downloads_into_a_writer() {
    service_test(|s| async move {
        let client = s.alice().client().await;
        let data = pattern(3 * PART + 5);
        let stored = client.upload(spec("stream"), std::io::Cursor::new(data.clone()), |_| {}).await.unwrap();
        let mut copy = Vec::new();
        let request =
            strongroom::proto::v1::DownloadFileRequest { file_id: file_id(&stored), ..Default::default() };
        client.download_to(request, &mut copy, |_| {}).await.unwrap();
        assert_eq!(copy, data);
    });
}

#[test]
fn two_files_may_have_the_same_name_and_bytes() {
    service_test(|s| async move {
        let alice = s.alice();
        let mut ids = BTreeMap::new();
        for n in 0..3 {
            ids.insert(file_id(&alice.upload(spec("same"), b"same").await.unwrap()), n);
        }
        assert_eq!((ids.len(), s.book(&alice).await.used_bytes), (3, 12));
    });
}

#[test]
fn each_upload_of_a_batch_is_answered_for_itself() {
    const UPLOADS: u32 = 24;
    service_test(|s| async move {
        let alice = s.alice();
        alice.upload(spec("first"), b"x").await.unwrap();
        // While somebody holds the quota row, finished uploads gather, and are committed together afterwards.
        s.owner.run("BEGIN; SELECT FROM quotas FOR UPDATE").await;
        let uploads: Vec<_> = (1..=UPLOADS)
            .map(|days| {
                // Request ids in the opposite order, and a third without any.
                let request_id = match days % 3 {
                    0 => String::new(),
                    _ => uuid::Uuid::from_u128(u128::from(1000 - days)).to_string(),
                };
                let spec = UploadSpec { retention_days: days as i32, request_id, ..spec(&format!("{days}")) };
                let alice = alice.clone();
                tokio::spawn(async move { (days, alice.upload(spec, b"x").await.unwrap().file.unwrap()) })
            })
            .collect();
        let all = UPLOADS as usize + 1;
        s.until("all are stored", || async {
            s.store.list("", None, 100).await.unwrap().objects.len() == all
        })
        .await;
        s.owner.run("COMMIT").await;
        for upload in uploads {
            let (days, file) = upload.await.unwrap();
            assert_eq!(file.name, format!("{days}"));
            let kept = file.retention_end_time.unwrap().seconds - file.create_time.unwrap().seconds;
            assert_eq!(kept, i64::from(days) * 24 * 3600, "{days}");
            assert_eq!(alice.get(&file.id).await.unwrap(), file);
        }
    });
}
