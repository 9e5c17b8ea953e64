//! `UploadFile`: stored bytes, records, and validation.

use std::collections::BTreeMap;

use prost_types::{Struct, Timestamp, Value, value::Kind};
use strongroom::proto::v1::{EntityRef, FileState, Quota, ScanStatus, UploadSpec, Visibility, WarningCode};
use tonic::Code;
use tonic_types::StatusExt;

pub(crate) use crate::harness::pattern;
use crate::harness::{PART, file_id, reason, service_test, service_test_with, sha256, spec, violated_fields};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0";

#[test]
fn upload_stores_bytes_and_record() {
    service_test(|s| async move {
        let alice = s.alice();
        let sent_spec = UploadSpec {
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
        let response = alice.upload(sent_spec.clone(), data).await.unwrap();
        let file = response.file.clone().unwrap();
        assert_eq!((file.name.as_str(), file.original_name.as_str()), ("minutes.txt", "minutes.txt"));
        assert_eq!((file.mime_type.as_str(), file.declared_mime_type.as_str()), ("text/plain", "text/plain"));
        assert_eq!((file.size_bytes, file.sha256.clone()), (22, sha256(data)));
        assert_eq!((file.owner_id.as_str(), file.created_by.as_str()), ("alice", "alice"));
        assert_eq!((file.category.as_str(), file.title.as_str()), ("report", "Minutes"));
        assert_eq!((&file.description, &file.metadata), (&sent_spec.description, &sent_spec.metadata));
        assert_eq!(
            (file.tags.clone(), file.attachments.clone()),
            (vec!["a".into(), "b".into()], sent_spec.attachments)
        );
        assert_eq!(
            (file.state(), file.scan.unwrap().status()),
            (FileState::Available, ScanStatus::NotScanned)
        );
        assert_eq!((file.visibility(), file.version), (Visibility::Organization, 1));
        assert!(response.warnings.is_empty(), "{:?}", response.warnings);
        assert_eq!(response.quota_state.unwrap().used_bytes, 22);
        assert_eq!(alice.get(&file.id).await.unwrap(), file);
        assert_eq!(alice.read(&file.id).await.unwrap(), data[..]);
    });
}

#[test]
fn sizes_around_part_boundary_are_read_back() {
    service_test(|s| async move {
        let alice = s.alice();
        for size in [0, 1, PART - 1, PART, PART + 1, 2 * PART, 5 * PART + 17] {
            for is_size_known in [true, false] {
                let data = pattern(size);
                let sent_spec = UploadSpec {
                    size_bytes: is_size_known.then_some(size as i64),
                    ..spec(&format!("{size} {is_size_known}"))
                };
                let response = alice.upload(sent_spec, &data).await.unwrap();
                let file = response.file.unwrap();
                assert_eq!(
                    (file.size_bytes, file.sha256),
                    (size as i64, sha256(&data)),
                    "{size} {is_size_known}"
                );
                assert_eq!(alice.read(&file.id).await.unwrap(), data, "{size} {is_size_known}");
            }
        }
    });
}

#[test]
fn names_are_kept_and_not_part_of_storage_key() {
    service_test(|s| async move {
        let alice = s.alice();
        let names = [
            "Müller – Grüße (1).pdf",
            "报告 2026.docx",
            "../../etc/passwd",
            "C:\\Users\\x\\y.txt",
            "'; DROP TABLE files; --",
            "%00%2e%2e%2f",
            "قائمة.txt",
            "👩‍👩‍👧 family.jpg",
            "e\u{301} is not \u{e9}",
            "$(rm -rf)`{}",
            " a space before",
        ];
        let mut keys = Vec::new();
        for name in names {
            let id = file_id(&alice.upload(spec(name), name.as_bytes()).await.unwrap());
            let file = alice.get(&id).await.unwrap();
            assert_eq!((file.name.as_str(), file.original_name.as_str()), (name, name));
            assert_eq!(alice.read(&id).await.unwrap(), name.as_bytes());
            keys = s.superuser.query_texts("SELECT storage_key FROM blobs").await;
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
fn content_type_is_detected_from_bytes() {
    service_test(|s| async move {
        let alice = s.alice();
        let declared = |mime_type: &str| UploadSpec { mime_type: mime_type.into(), ..spec("picture") };
        let response = alice.upload(declared("application/pdf"), PNG).await.unwrap();
        let file = response.file.unwrap();
        assert_eq!(
            (file.mime_type.as_str(), file.declared_mime_type.as_str()),
            ("image/png", "application/pdf")
        );
        assert_eq!(response.warnings.len(), 1);
        assert_eq!(response.warnings[0].code(), WarningCode::TypeCorrected);

        let undeclared = alice.upload(declared(""), PNG).await.unwrap();
        assert_eq!(
            (undeclared.file.unwrap().mime_type.as_str(), undeclared.warnings.len()),
            ("image/png", 0)
        );
        let unknown = alice.upload(declared(""), &[0, 255, 0, 1]).await.unwrap().file.unwrap();
        assert_eq!(unknown.mime_type, "application/octet-stream");
    });
}

#[test]
fn file_above_10_mib_gets_warning() {
    service_test(|s| async move {
        let response = s.alice().upload(spec("large.bin"), &vec![0; 10 * 1024 * 1024 + 1]).await.unwrap();
        assert_eq!(
            response.warnings.iter().map(|warning| warning.code()).collect::<Vec<_>>(),
            [WarningCode::LargeFile]
        );
    });
}

#[test]
fn invalid_spec_reports_all_fields() {
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
        let error = s.alice().upload(wrong, b"x").await.unwrap_err();
        assert_eq!((error.code(), reason(&error).as_str()), (Code::InvalidArgument, "INVALID_FIELD"));
        let fields = violated_fields(&error);
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
fn rejects_empty_long_or_control_character_names() {
    service_test(|s| async move {
        let alice = s.alice();
        for name in ["", "a\0b", "line\nbreak", &"x".repeat(256)] {
            let error = alice.upload(spec(name), b"x").await.unwrap_err();
            assert_eq!(violated_fields(&error), ["spec.name"], "{name:?}");
        }
        alice.upload(spec(&"ä".repeat(255)), b"x").await.unwrap();
    });
}

#[test]
fn blocked_extensions_depend_on_policy() {
    service_test(|s| async move {
        for (name, in_general, in_education) in [
            ("a.exe", false, false),
            ("a.tar.JS", false, false),
            ("a.zip", true, false),
            ("a.exe.txt", true, true),
        ] {
            for (caller, is_allowed) in [(s.alice(), in_general), (s.pupil(), in_education)] {
                let response = caller.upload(spec(name), b"x").await;
                assert_eq!(response.is_ok(), is_allowed, "{name} for {}", caller.identity.user);
            }
        }
    });
}

#[test]
fn rejects_file_above_limit_of_its_media_kind() {
    service_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        let limits = strongroom::proto::v1::FileSizeLimits { image_bytes: 1000, ..Default::default() };
        let quota = Quota { file_size_max_bytes: Some(limits), ..Quota::default() };
        ada.update_quota("", quota, &["file_size_max_bytes.image_bytes"]).await.unwrap();
        let mut image = PNG.to_vec();
        image.resize(1001, 0);
        for size_bytes in [None, Some(1001)] {
            let error = alice.upload(UploadSpec { size_bytes, ..spec("a.png") }, &image).await.unwrap_err();
            assert_eq!((error.code(), reason(&error).as_str()), (Code::ResourceExhausted, "FILE_TOO_LARGE"));
            let details = error.get_error_details();
            assert!(details.quota_failure().is_some() && details.retry_info().is_none());
        }
        s.assert_nothing_is_left().await;
        image.truncate(1000);
        alice.upload(spec("a.png"), &image).await.unwrap();
        alice.upload(spec("a.txt"), &vec![b'a'; 1001]).await.unwrap();
    });
}

#[test]
fn rejects_upload_if_required_scan_is_impossible() {
    service_test_with(
        |config| config.scanning.accept_unscanned = false,
        |s| async move {
            let error = s.pupil().upload(spec("essay.txt"), b"x").await.unwrap_err();
            assert_eq!((error.code(), reason(&error).as_str()), (Code::FailedPrecondition, "SCAN_REQUIRED"));
            s.assert_nothing_is_left().await;
            s.alice().upload(spec("a.txt"), b"x").await.unwrap();
        },
    );
}

#[test]
fn upload_by_service_is_audited_under_its_name() {
    service_test(|s| async move {
        let billing = s.billing();
        let id = file_id(&billing.upload(spec("invoice.txt"), b"42").await.unwrap());
        let rows = s
            .superuser
            .query_rows(
                "SELECT actor_kind::int, actor_id FROM audit_entries WHERE file_id = $1::text::uuid",
                &[&id],
            )
            .await;
        let entries: Vec<(i32, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        assert_eq!(entries, [(2, "service:billing".to_owned())]);
        let kinds = s.superuser.query_texts("SELECT format('%s v%s', kind, version) FROM events").await;
        assert_eq!(kinds, ["1 v1"]);
    });
}

#[test]
fn client_library_uploads_and_downloads_streams() {
    service_test(|s| async move {
        let client = s.alice().connect_client().await;
        let data = pattern(3 * PART + 5);
        let stored =
            client.upload_reader(spec("stream"), std::io::Cursor::new(data.clone()), |_| {}).await.unwrap();
        let mut copy = Vec::new();
        let request =
            strongroom::proto::v1::DownloadFileRequest { file_id: file_id(&stored), ..Default::default() };
        client.download_to(request, &mut copy, |_| {}).await.unwrap();
        assert_eq!(copy, data);
    });
}

#[test]
fn files_may_share_name_and_bytes() {
    service_test(|s| async move {
        let alice = s.alice();
        let mut ids = BTreeMap::new();
        for n in 0..3 {
            ids.insert(file_id(&alice.upload(spec("same"), b"same").await.unwrap()), n);
        }
        assert_eq!((ids.len(), s.quota_row(&alice).await.used_bytes), (3, 12));
    });
}

#[test]
fn uploads_committed_together_keep_own_responses() {
    const UPLOADS: u32 = 24;
    service_test(|s| async move {
        let alice = s.alice();
        alice.upload(spec("first"), b"x").await.unwrap();
        // While the quota row is locked, finished uploads queue up; then they are committed together.
        s.superuser.execute("BEGIN; SELECT FROM quotas FOR UPDATE").await;
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
        s.wait_until("all objects are stored", || async {
            s.store.list("", None, 100).await.unwrap().objects.len() == all
        })
        .await;
        s.superuser.execute("COMMIT").await;
        for upload in uploads {
            let (days, file) = upload.await.unwrap();
            assert_eq!(file.name, format!("{days}"));
            let retention_seconds =
                file.retention_end_time.unwrap().seconds - file.create_time.unwrap().seconds;
            assert_eq!(retention_seconds, i64::from(days) * 24 * 3600, "{days}");
            assert_eq!(alice.get(&file.id).await.unwrap(), file);
        }
    });
}
