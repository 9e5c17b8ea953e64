//! Values that survive: times and text come back as they were sent, and damaged records do not affect other records.
//! `doubles.rs` tests numbers.

use prost_types::Timestamp;
use strongroom::proto::{
    admin::v1::export_tenant_response::Record,
    v1::{
        BatchGetFilesRequest, CopyFileRequest, File, FileFilter, FileState, FileStateReason, FileView,
        ListFilesRequest, UploadSpec,
    },
};
use tonic::Code;

use crate::{
    harness::{
        Caller, PART, Service, file_id, pattern, reason, resume_messages, service_test, sha256, spec,
        upload_messages, violated_fields,
    },
    upload_retries::spec_with_id,
};

/// The last nanosecond of the year 9999.
const LAST: Timestamp = Timestamp { seconds: 253_402_300_799, nanos: 999_999_999 };

pub(crate) async fn get_full(caller: &Caller, id: &str) -> File {
    let request = ListFilesRequest { view: FileView::Full.into(), ..ListFilesRequest::default() };
    caller.list(request).await.unwrap().files.into_iter().find(|file| file.id == id).unwrap()
}

/// Returns an intact file and one whose metadata and times the database contains but the service cannot read.
async fn damage_file(s: &Service) -> (String, String) {
    s.allow_logged_errors();
    let alice = s.alice();
    let intact = file_id(&alice.upload(spec("intact"), b"one").await.unwrap());
    let damaged = file_id(&alice.upload(spec("damaged"), b"two").await.unwrap());
    s.superuser
        .execute(&format!(
            "UPDATE files SET metadata = '{{\"n\": 1e400}}', update_time = 'infinity' WHERE id = '{damaged}'"
        ))
        .await;
    (intact, damaged)
}

#[test]
fn damaged_record_breaks_no_list_batch_or_export() {
    service_test(|s| async move {
        let (intact, damaged) = damage_file(&s).await;
        let alice = s.alice();
        let assert_damaged = |file: &File| {
            assert_eq!(
                (file.id.as_str(), file.name.as_str(), file.state(), file.state_reason()),
                (damaged.as_str(), "damaged", FileState::Error, FileStateReason::RecordDamaged)
            );
        };
        assert_damaged(&alice.get(&damaged).await.unwrap());
        for view in [FileView::Basic, FileView::Full] {
            let request = ListFilesRequest { view: view.into(), ..ListFilesRequest::default() };
            let listed = alice.list(request).await.unwrap().files;
            assert_eq!(listed.len(), 2);
            assert_damaged(listed.iter().find(|file| file.id != intact).unwrap());
        }
        let batch = BatchGetFilesRequest {
            file_ids: vec![intact.clone(), damaged.clone()],
            view: FileView::Full.into(),
        };
        let batch = alice.files.clone().batch_get_files(batch).await.unwrap().into_inner();
        assert_eq!(batch.files.len(), 2);
        let records = s.operator().export_tenant(&alice.tenant_id().await).await.unwrap();
        let files: Vec<_> = records.iter().filter(|record| matches!(record, Record::File(_))).collect();
        assert_eq!(files.len(), 2);
        assert!(s.logged_errors().iter().any(|error| error.contains(&damaged)), "the log names the file");
        // The content is intact.
        assert_eq!(alice.read(&damaged).await.unwrap(), b"two"[..]);
    });
}

#[test]
fn lists_continue_after_times_that_cannot_be_read() {
    service_test(|s| async move {
        s.allow_logged_errors();
        let alice = s.alice();
        let times = ["'-infinity'", "'-infinity'", "now()", "now()", "'infinity'", "'infinity'"];
        for (number, time) in times.into_iter().enumerate() {
            let id = file_id(&alice.upload(spec(&format!("f{number}")), b"x").await.unwrap());
            s.superuser.execute(&format!("UPDATE files SET create_time = {time} WHERE id = '{id}'")).await;
        }
        for view in [FileView::Basic, FileView::Full] {
            for name_prefix in ["", "f"] {
                for order_by in ["create_time", "create_time desc"] {
                    let filter =
                        Some(FileFilter { name_prefix: name_prefix.to_owned(), ..Default::default() });
                    let order_by = order_by.to_owned();
                    let mut request = ListFilesRequest {
                        page_size: 1,
                        filter,
                        order_by,
                        view: view.into(),
                        ..Default::default()
                    };
                    let mut names = Vec::new();
                    while names.len() < times.len() {
                        let page = alice.list(request.clone()).await.unwrap();
                        let has_next = !page.next_page_token.is_empty();
                        names.extend(page.files.into_iter().map(|file| file.name));
                        assert_eq!(has_next, names.len() < times.len(), "{request:?} {names:?}");
                        request.page_token = page.next_page_token;
                    }
                    if request.order_by.ends_with("desc") {
                        names.reverse();
                    }
                    assert_eq!(names, ["f0", "f1", "f2", "f3", "f4", "f5"], "{request:?}");
                }
            }
        }
    });
}

#[test]
fn damaged_record_can_get_versions_and_be_deleted() {
    service_test(|s| async move {
        let (intact, damaged) = damage_file(&s).await;
        let alice = s.alice();
        // Both versions may be in one batch.
        let (one, two) =
            futures::join!(alice.upload_version(&intact, b"1"), alice.upload_version(&damaged, b"22"));
        assert_eq!(one.unwrap().state(), FileState::Available);
        assert_eq!(two.unwrap().state_reason(), FileStateReason::RecordDamaged);

        let rename = File { id: damaged.clone(), name: "b".to_owned(), ..File::default() };
        let refused = alice.update(rename, &["name"]).await.unwrap_err();
        assert_eq!(reason(&refused), "FILE_NOT_AVAILABLE", "an update would replace the unreadable metadata");
        let copy = CopyFileRequest { file_id: damaged.clone(), ..CopyFileRequest::default() };
        assert_eq!(reason(&alice.copy(copy).await.unwrap_err()), "FILE_NOT_AVAILABLE");

        let trashed = alice.delete(&damaged).await.unwrap().unwrap();
        assert_eq!(trashed.state(), FileState::Deleted);
        alice.undelete(&damaged).await.unwrap();
        alice.batch_delete(&[&intact, &damaged]).await.unwrap();
        alice.purge(&damaged).await.unwrap();
        assert_eq!(alice.get(&damaged).await.unwrap_err().code(), Code::NotFound);
    });
}

#[test]
fn responses_show_stored_times() {
    service_test(|s| async move {
        let alice = s.alice();
        let truncated = Timestamp { nanos: 999_999_000, ..LAST };
        let until = UploadSpec { expire_time: Some(LAST), ..spec("a") };
        let uploaded = alice.upload(until, b"x").await.unwrap();
        assert_eq!(uploaded.file.as_ref().unwrap().expire_time, Some(truncated));
        let id = file_id(&uploaded);
        assert_eq!(alice.get(&id).await.unwrap().expire_time, Some(truncated));
        let change = File { id: id.clone(), expire_time: Some(LAST), ..File::default() };
        assert_eq!(alice.update(change, &["expire_time"]).await.unwrap().expire_time, Some(truncated));
        assert_eq!(alice.get(&id).await.unwrap().expire_time, Some(truncated));

        // Earlier releases rounded this time to the year 10000, which messages cannot contain.
        let year_10000 = format!("UPDATE files SET expire_time = '10000-01-01T00:00:00Z' WHERE id = '{id}'");
        s.superuser.execute(&year_10000).await;
        assert_eq!(alice.get(&id).await.unwrap().expire_time, Some(truncated));
        let version = alice.upload_version(&id, b"y").await.unwrap();
        assert_eq!((version.state(), version.expire_time), (FileState::Available, Some(truncated)));

        for seconds in [LAST.seconds + 1, -62_135_596_801] {
            let invalid = UploadSpec { expire_time: Some(Timestamp { seconds, nanos: 0 }), ..spec("a") };
            let error = alice.upload(invalid, b"x").await.unwrap_err();
            assert_eq!(violated_fields(&error), ["spec.expire_time"]);
        }
    });
}

#[test]
fn committed_upload_cannot_be_completed_as_another_file() {
    service_test(|s| async move {
        let alice = s.alice();
        let data = pattern(2 * PART + 10);
        let upload = alice.create_upload(spec("a")).await.unwrap();
        let resume =
            |data: &[u8], offset| alice.send_messages(resume_messages(&upload.id, data, offset, true));
        let first = resume(&data, 0).await.unwrap();
        for offset in [0, PART, 2 * PART, data.len()] {
            assert_eq!(resume(&data, offset).await.unwrap().file, first.file, "same bytes from {offset}");
        }
        let mut changed = data.clone();
        changed[PART + 1] ^= 1;
        for offset in [0, PART] {
            assert_eq!(reason(&resume(&changed, offset).await.unwrap_err()), "CHECKSUM_MISMATCH", "{offset}");
        }
        assert_eq!(reason(&resume(&data[..PART], 0).await.unwrap_err()), "SIZE_MISMATCH");
        let longer = [&data[..], b"more"].concat();
        assert_eq!(reason(&resume(&longer, 0).await.unwrap_err()), "SIZE_MISMATCH");
        assert_eq!(reason(&alice.complete_upload(&upload.id, 7).await.unwrap_err()), "SIZE_MISMATCH");
        assert_eq!(alice.complete_upload(&upload.id, data.len()).await.unwrap(), first.file.clone().unwrap());
        assert_eq!(
            reason(&alice.upload_part(&upload.id, PART, &changed[PART..2 * PART]).await.unwrap_err()),
            "CHECKSUM_MISMATCH"
        );
        alice.upload_part(&upload.id, PART, &data[PART..2 * PART]).await.unwrap();

        let id = "0198c0de-1111-7000-8000-0000000000a2";
        let small = UploadSpec { size_bytes: Some(5), ..spec_with_id("b", id, Some(sha256(b"bytes"))) };
        alice.upload(small.clone(), b"bytes").await.unwrap();
        let other_size = UploadSpec { size_bytes: Some(6), ..small };
        let retry = alice.send_messages(upload_messages(other_size, b"bytes!", 1024)).await;
        assert_eq!(reason(&retry.unwrap_err()), "SIZE_MISMATCH");
    });
}

#[test]
fn names_are_cleaned_or_refused_before_extensions_are_checked() {
    service_test(|s| async move {
        let pupil = s.head();
        let names = [
            ("plan.pdf. ", Some("plan.pdf")),
            ("\u{feff}plan.pdf\u{200b}", Some("plan.pdf")),
            ("setup.exe. ", None),
            ("setup.exe\u{200b}", None),
            ("setup.exe::$DATA", None),
            ("setup\u{202e}fdp.exe", None),
            ("a\u{2028}b", None),
            (" .. ", None),
            ("\u{2068}plan\u{2069}.pdf", Some("plan.pdf")),
            ("a\u{2068}setup.exe\u{2069}", None),
            ("a\u{2068}b.pdf", None),
        ];
        for (sent, stored) in names {
            let uploaded = pupil.upload(spec(sent), b"x").await;
            match stored {
                Some(stored) => {
                    let file = uploaded.unwrap().file.unwrap();
                    assert_eq!((file.name.as_str(), file.original_name.as_str()), (stored, stored));
                    let renamed = pupil.rename(&file.id, sent).await.unwrap();
                    assert_eq!(renamed.name, stored);
                    let copy =
                        CopyFileRequest { file_id: file.id, name: sent.to_owned(), ..Default::default() };
                    assert_eq!(pupil.copy(copy).await.unwrap().name, stored);
                }
                None => assert_eq!(violated_fields(&uploaded.unwrap_err()), ["spec.name"], "{sent:?}"),
            }
        }
    });
}

#[test]
fn update_with_an_unchanged_older_name_keeps_it() {
    service_test(|s| async move {
        let alice = s.alice();
        for older in ["report.", "report.exe", "report\u{202e}"] {
            let id = file_id(&alice.upload(spec("report"), b"x").await.unwrap());
            s.superuser.execute(&format!("UPDATE files SET name = '{older}' WHERE id = '{id}'")).await;
            let change =
                File { id: id.clone(), name: older.to_owned(), title: "T".to_owned(), ..File::default() };
            let updated = alice.update(change, &["name", "title"]).await.unwrap();
            assert_eq!((updated.name.as_str(), updated.title.as_str()), (older, "T"));
            assert_eq!(alice.rename(&id, "report. ").await.unwrap().name, "report");
            let error = alice.rename(&id, "report.exe").await.unwrap_err();
            assert_eq!(violated_fields(&error), ["file.name"]);
        }
    });
}

#[test]
fn text_filters_ignore_normalization_forms() {
    service_test(|s| async move {
        let alice = s.alice();
        let (composed, decomposed) = ("\u{e9}t\u{e9}", "e\u{301}te\u{301}");
        for (number, form) in [composed, decomposed].into_iter().enumerate() {
            let tags = vec![form.to_owned(), composed.to_owned()];
            let spec = UploadSpec { tags, ..spec(&format!("{form}{number}")) };
            let file = alice.upload(spec, b"x").await.unwrap().file.unwrap();
            assert_eq!(file.name, format!("{form}{number}"), "the name is what was sent");
            assert_eq!(file.tags, [composed]);
        }
        for form in [composed, decomposed] {
            let filters = [
                FileFilter { name_prefix: form.to_owned(), ..FileFilter::default() },
                FileFilter { tags_all: vec![form.to_owned()], ..FileFilter::default() },
                FileFilter { tags_any: vec![form.to_owned()], ..FileFilter::default() },
            ];
            for filter in filters {
                let request = ListFilesRequest { filter: Some(filter), ..ListFilesRequest::default() };
                assert_eq!(alice.list_names(request).await.len(), 2);
            }
        }
        let bare = FileFilter { name_prefix: "e".to_owned(), ..FileFilter::default() };
        let bare = ListFilesRequest { filter: Some(bare), ..ListFilesRequest::default() };
        assert_eq!(alice.list_names(bare).await, [""; 0], "the letter without its accent is another letter");
    });
}

#[test]
fn open_upload_with_tags_in_two_forms_becomes_one_tag() {
    service_test(|s| async move {
        let alice = s.alice();
        let (composed, decomposed) = ("\u{e9}t\u{e9}", "e\u{301}te\u{301}");
        let tags = [composed, "later"].map(str::to_owned).to_vec();
        let upload = alice.create_upload(UploadSpec { tags, ..spec("a") }).await.unwrap();
        // As versions that did not normalize tags stored it.
        let former =
            format!("UPDATE uploads SET spec = replace(spec::text, '\"later\"', '\"{decomposed}\"')::jsonb");
        s.superuser.execute(&former).await;
        let count = format!("SELECT count(*) FROM uploads WHERE spec::text LIKE '%{decomposed}%'");
        assert_eq!(s.superuser.query_number(&count).await, 1);
        alice.upload_part(&upload.id, 0, b"bytes").await.unwrap();
        let file = alice.complete_upload(&upload.id, 5).await.unwrap();
        assert_eq!(s.superuser.query_texts("SELECT tag FROM file_tags").await, [composed]);
        assert_eq!(get_full(&alice, &file.id).await.tags, [composed]);
    });
}
