//! The presets of the policy, column by column: each is walked through the doors that callers use.

use strongroom::{
    config::Config,
    proto::v1::{
        CopyFileRequest, File, FileSizeLimits, FileState, ListFilesRequest, UploadFileResponse, UploadSpec,
        Visibility, WarningCode,
    },
};
use tonic::{Code, Status};

use crate::harness::{Caller, Service, file_id, reason, service_test_with, spec, violated_fields};

const MIB: i64 = 1024 * 1024;
const GIB: i64 = 1024 * MIB;

/// A name, a declared type, and bytes.
type Sample = (&'static str, &'static str, &'static [u8]);

const PNG: Sample =
    ("a.png", "image/png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0");
const JPEG: Sample = ("a.jpg", "image/jpeg", b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0");
const GIF: Sample = ("a.gif", "image/gif", b"GIF89a\x01\0\x01\0\0\0\0");
const WEBP: Sample = ("a.webp", "image/webp", b"RIFF\x24\0\0\0WEBPVP8 \x18\0\0\0");
const SVG: Sample =
    ("a.svg", "image/svg+xml", b"<?xml version=\"1.0\"?><svg xmlns=\"http://www.w3.org/2000/svg\"/>");
const MP4: Sample = ("a.mp4", "video/mp4", b"\0\0\0\x18ftypisom\0\0\x02\0isomiso2mp41");
const WEBM: Sample =
    ("a.webm", "video/webm", b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82\x84webm\x42\x87\x81\x04");
const MOV: Sample = ("a.mov", "video/quicktime", b"\0\0\0\x14ftypqt  \0\0\0\0qt  ");
const MP3: Sample = ("a.mp3", "audio/mpeg", b"ID3\x03\0\0\0\0\0\0");
const PDF: Sample = ("a.pdf", "application/pdf", b"%PDF-1.7\n");
const DOC: Sample = ("a.doc", "application/msword", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0\0\0\0\0\0\0\0");
const XLS: Sample =
    ("a.xls", "application/vnd.ms-excel", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0\0\0\0\0\0\0\0");
const DOCX: Sample = (
    "a.docx",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x11\0\0\0word/document.xml",
);
const XLSX: Sample = (
    "a.xlsx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x0f\0\0\0xl/workbook.xml",
);
const ZIP: &[u8] = b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x09\0\0\0notes.txt";
const TEXT: Sample = ("a.txt", "text/plain", b"just some text");
const PROGRAM: Sample = ("a.exe", "", b"MZ");

/// One column of the policy's table.
struct Column {
    preset: &'static str,
    limit_bytes: i64,
    file_count_max: i64,
    /// Image, video, audio, document, other.
    largest: [i64; 5],
    takes: &'static [Sample],
    refuses: &'static [Sample],
    colleagues_see: bool,
    colleagues_write: bool,
    /// 0: what is deleted is purged.
    trash_days: i64,
    trash_counts: bool,
    scan_required: bool,
}

/// A firm with this preset.
fn firm(preset: &'static str) -> impl FnOnce(&mut Config) {
    move |config| {
        config.tenants.presets.insert("firm".to_owned(), preset.to_owned());
    }
}

fn olga(s: &Service) -> Caller {
    s.member("olga", "firm", "member", &[])
}

fn colin(s: &Service) -> Caller {
    s.member("colin", "firm", "member", &[])
}

fn boss(s: &Service) -> Caller {
    s.member("boss", "firm", "manager", &[])
}

fn anna(s: &Service) -> Caller {
    s.member("anna", "firm", "admin", &[])
}

async fn put(caller: &Caller, category: &str, sample: Sample) -> Result<UploadFileResponse, Status> {
    let (name, mime_type, bytes) = sample;
    let spec = UploadSpec { mime_type: mime_type.to_owned(), category: category.to_owned(), ..spec(name) };
    caller.upload(spec, bytes).await
}

/// Walks a whole column.
fn walk(column: Column) {
    let (preset, scan_required) = (column.preset, column.scan_required);
    service_test_with(firm(preset), |s| async move {
        limits_are_those_of(&s, &column).await;
        types_are_those_of(&s, &column).await;
        let first = column.takes[0];
        colleagues_may_what_they_may_in(&s, &column, first).await;
        trash_is_that_of(&s, &column, first).await;
    });
    let without_scanner = move |config: &mut Config| {
        firm(preset)(config);
        config.scanning.accept_unscanned = false;
    };
    service_test_with(without_scanner, |s| async move {
        let uploaded = olga(&s).upload(spec("a.pdf"), PDF.2).await;
        let refused = uploaded.as_ref().is_err_and(|status| reason(status) == "SCAN_REQUIRED");
        assert!(if scan_required { refused } else { uploaded.is_ok() }, "{preset}: {uploaded:?}");
    });
}

async fn limits_are_those_of(s: &Service, column: &Column) {
    let quota = anna(s).quota().await.unwrap();
    assert_eq!((quota.limit_bytes, quota.file_count_max), (column.limit_bytes, column.file_count_max));
    assert_eq!((quota.ceiling_bytes, quota.ceiling_file_count), (column.limit_bytes, column.file_count_max));
    assert_eq!((quota.warning_percent, quota.critical_percent), (80, 95));
    let [image_bytes, video_bytes, audio_bytes, document_bytes, other_bytes] = column.largest;
    let largest = FileSizeLimits { image_bytes, video_bytes, audio_bytes, document_bytes, other_bytes };
    assert_eq!(quota.file_size_max_bytes, Some(largest));
    let too_large = column.largest.iter().max().unwrap() + 1;
    let spec = UploadSpec { size_bytes: Some(too_large), ..spec("large.pdf") };
    assert_eq!(reason(&olga(s).upload(spec, b"").await.unwrap_err()), "FILE_TOO_LARGE");
}

async fn types_are_those_of(s: &Service, column: &Column) {
    for sample in column.takes {
        let answer = put(&olga(s), "", *sample).await;
        let answer =
            answer.unwrap_or_else(|status| panic!("{} takes {}: {status:?}", column.preset, sample.0));
        assert_eq!(answer.warnings, [], "{}", sample.0);
    }
    for sample in column.refuses {
        let refused = put(&olga(s), "", *sample).await;
        let refused =
            refused.map_or_else(|status| status, |_| panic!("{} takes {}", column.preset, sample.0));
        let field = &violated_fields(&refused)[0];
        assert_eq!(refused.code(), Code::InvalidArgument, "{}", sample.0);
        assert!(["spec.name", "spec.mime_type"].contains(&field.as_str()), "{}: {field}", sample.0);
    }
}

async fn colleagues_may_what_they_may_in(s: &Service, column: &Column, sample: Sample) {
    let id = file_id(&put(&olga(s), "", sample).await.unwrap());
    assert!(anna(s).get(&id).await.is_ok() && olga(s).get(&id).await.is_ok());
    for colleague in [colin(s), boss(s)] {
        let listed = colleague.names(ListFilesRequest::default()).await;
        assert_eq!(listed.contains(&sample.0.to_owned()), column.colleagues_see, "{}", column.preset);
        let seen = colleague.read(&id).await.map(|_| ());
        if !column.colleagues_see {
            assert_eq!(seen.unwrap_err().code(), Code::NotFound);
            assert_eq!(colleague.rename(&id, "b.pdf").await.unwrap_err().code(), Code::NotFound);
            continue;
        }
        seen.unwrap();
        let changes = [
            colleague.rename(&id, "b.pdf").await.map(|_| ()),
            colleague.archive(&id).await.map(|_| ()),
            colleague.unarchive(&id).await.map(|_| ()),
        ];
        for change in changes {
            match change {
                Ok(()) => assert!(column.colleagues_write, "{}", column.preset),
                Err(status) => {
                    assert!(!column.colleagues_write, "{}: {status:?}", column.preset);
                    assert_eq!(
                        (status.code(), reason(&status).as_str()),
                        (Code::PermissionDenied, "NOT_ALLOWED")
                    );
                }
            }
        }
        assert_eq!(colleague.purge(&id).await.is_ok(), column.colleagues_write, "{}", column.preset);
        if column.colleagues_write {
            return;
        }
    }
    anna(s).rename(&id, "by the admin.pdf").await.unwrap();
    olga(s).purge(&id).await.unwrap();
}

async fn trash_is_that_of(s: &Service, column: &Column, sample: Sample) {
    let olga = olga(s);
    let id = file_id(&put(&olga, "", sample).await.unwrap());
    let before = olga.quota().await.unwrap().used_bytes;
    let deleted = olga.delete(&id).await.unwrap();
    let freed = before - olga.quota().await.unwrap().used_bytes;
    if column.trash_days == 0 {
        assert_eq!(deleted, None, "what is deleted is purged");
        assert_eq!(olga.get(&id).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(freed, sample.2.len() as i64);
        return;
    }
    let deleted = deleted.unwrap();
    let kept = deleted.purge_time.unwrap().seconds - deleted.delete_time.unwrap().seconds;
    assert_eq!((deleted.state(), kept), (FileState::Deleted, column.trash_days * 24 * 3600));
    assert_eq!(freed == 0, column.trash_counts, "{}", column.preset);
    olga.undelete(&id).await.unwrap();
    assert_eq!(olga.quota().await.unwrap().used_bytes, before);
}

#[test]
fn general_is_what_its_column_says() {
    walk(Column {
        preset: "general",
        limit_bytes: 100 * GIB,
        file_count_max: 1_000_000,
        largest: [5 * GIB; 5],
        takes: &[PDF, PNG, TEXT, ("a.zip", "application/zip", ZIP)],
        refuses: &[PROGRAM],
        colleagues_see: true,
        colleagues_write: false,
        trash_days: 30,
        trash_counts: true,
        scan_required: false,
    });
}

#[test]
fn workspace_is_what_its_column_says() {
    walk(Column {
        preset: "workspace",
        limit_bytes: 100 * GIB,
        file_count_max: 1_000_000,
        largest: [5 * GIB; 5],
        takes: &[PDF, PNG, TEXT, ("a.zip", "application/zip", ZIP), PROGRAM],
        refuses: &[],
        colleagues_see: true,
        colleagues_write: true,
        trash_days: 0,
        trash_counts: true,
        scan_required: false,
    });
}

#[test]
fn crm_is_what_its_column_says() {
    walk(Column {
        preset: "crm",
        limit_bytes: 107_374_182_400,
        file_count_max: 0,
        largest: [50 * MIB, 500 * MIB, 100 * MIB, 100 * MIB, 50 * MIB],
        takes: &[PDF, DOC, DOCX, XLS, XLSX, JPEG, PNG, GIF, WEBP, SVG, MP4, MP3],
        refuses: &[PROGRAM, TEXT, WEBM, ("a.zip", "application/zip", ZIP), ("a.docx", DOCX.1, ZIP)],
        colleagues_see: false,
        colleagues_write: false,
        trash_days: 30,
        trash_counts: false,
        scan_required: true,
    });
}

#[test]
fn education_is_what_its_column_says() {
    walk(Column {
        preset: "education",
        limit_bytes: GIB,
        file_count_max: 10_000,
        largest: [50 * MIB, 500 * MIB, 100 * MIB, 100 * MIB, 100 * MIB],
        takes: &[PDF, PNG, TEXT],
        refuses: &[PROGRAM, ("a.zip", "application/zip", ZIP), ("a.dmg", "", b"x")],
        // Of the default category; every other one is walked in `list_education`.
        colleagues_see: true,
        colleagues_write: false,
        trash_days: 30,
        trash_counts: false,
        scan_required: true,
    });
}

#[test]
fn images_is_what_its_column_says() {
    walk(Column {
        preset: "images",
        limit_bytes: 100 * GIB,
        file_count_max: 1_000_000,
        largest: [10 * MIB, 100 * MIB, 0, 50 * MIB, 50 * MIB],
        takes: &[PNG, JPEG, WEBP],
        refuses: &[GIF, SVG, MP4, PDF, MP3, TEXT, PROGRAM],
        colleagues_see: false,
        colleagues_write: false,
        trash_days: 30,
        trash_counts: false,
        scan_required: true,
    });
}

#[test]
fn each_category_of_images_takes_its_own_types_and_is_seen_by_its_own_people() {
    service_test_with(firm("images"), |s| async move {
        let olga = olga(&s);
        let cases: [(&str, &[Sample], &[Sample], bool); 4] = [
            ("course-thumbnails", &[JPEG, PNG, WEBP], &[SVG, MP4], false),
            ("profile-pictures", &[JPEG, PNG, WEBP], &[SVG, GIF], false),
            ("public-pages", &[JPEG, PNG, WEBP, SVG], &[GIF, MP4], true),
            ("videos", &[MP4, WEBM, MOV], &[PNG, MP3], false),
        ];
        for (category, takes, refuses, is_public) in cases {
            for sample in takes {
                let answer = put(&olga, category, *sample).await;
                let file = answer
                    .unwrap_or_else(|status| panic!("{category} {}: {status:?}", sample.0))
                    .file
                    .unwrap();
                let expected = if is_public { Visibility::Public } else { Visibility::Owner };
                assert_eq!(file.visibility(), expected, "{category}");
                for colleague in [colin(&s), boss(&s)] {
                    assert_eq!(colleague.get(&file.id).await.is_ok(), is_public, "{category}");
                }
                assert!(anna(&s).get(&file.id).await.is_ok());
            }
            for sample in refuses {
                let refused = put(&olga, category, *sample).await.unwrap_err();
                assert_eq!(violated_fields(&refused), ["spec.mime_type"], "{category} {}", sample.0);
            }
        }
        let refused = put(&olga, "avatar", PNG).await.unwrap_err();
        assert_eq!(violated_fields(&refused), ["spec.category"]);
    });
}

#[test]
fn a_closed_list_judges_the_bytes_and_the_declaration_only_where_they_say_nothing() {
    service_test_with(firm("crm"), |s| async move {
        let olga = olga(&s);
        let noise: &[u8] = &[0, 159, 146, 150, 3, 1];
        let cases: [(Sample, bool); 7] = [
            (("a.png", "image/png", TEXT.2), false),
            (("a.txt", "text/plain", PNG.2), true),
            (("a.bin", "application/pdf", noise), true),
            (("a.bin", "application/x-mystery", noise), false),
            (("a.pdf", "", noise), true),
            (("a.pdf", "application/octet-stream", noise), true),
            (("a.bin", "", noise), false),
        ];
        for (sample, is_taken) in cases {
            let answer = put(&olga, "", sample).await;
            assert_eq!(answer.is_ok(), is_taken, "{} as {}: {answer:?}", sample.0, sample.1);
        }
        assert_eq!(
            s.store.list("", None, 100).await.unwrap().objects.len(),
            4,
            "what is refused leaves nothing"
        );
    });
}

#[test]
fn a_closed_list_judges_uploads_that_are_gone_on_with_too_however_small() {
    service_test_with(firm("crm"), |s| async move {
        let olga = olga(&s);
        let upload = olga.create(spec("a.pdf")).await.unwrap();
        let refused = olga.go_on(&upload.id, ZIP, 0, true).await.unwrap_err();
        assert_eq!(violated_fields(&refused), ["spec.mime_type"]);
        let refused = olga.part(&upload.id, 0, ZIP).await.unwrap_err();
        assert_eq!(violated_fields(&refused), ["spec.mime_type"]);
        assert_eq!(olga.upload_at(&upload.id).await.unwrap().persisted_size_bytes, 0);
        olga.cancel(&upload.id).await.unwrap();

        // A version is called as its file, where only the name tells.
        let id = file_id(&put(&olga, "", (XLS.0, "", XLS.2)).await.unwrap());
        olga.upload_version(&id, XLS.2).await.unwrap();
    });
}

#[test]
fn a_copy_is_taken_by_no_category_that_would_not_take_the_upload() {
    service_test_with(firm("images"), |s| async move {
        let id = file_id(&put(&olga(&s), "videos", MP4).await.unwrap());
        let into = |category: &str| CopyFileRequest {
            file_id: id.clone(),
            category: category.to_owned(),
            ..CopyFileRequest::default()
        };
        let refused = olga(&s).copy(into("profile-pictures")).await.unwrap_err();
        assert_eq!(violated_fields(&refused), ["category"]);
        olga(&s).copy(into("videos")).await.unwrap();
    });
}

#[test]
fn a_closed_list_is_judged_before_a_large_file_has_travelled() {
    service_test_with(firm("crm"), |s| async move {
        let text = vec![b'a'; 200_000];
        let refused = olga(&s).upload(UploadSpec { size_bytes: Some(200_000), ..spec("a.pdf") }, &text).await;
        assert_eq!(violated_fields(&refused.unwrap_err()), ["spec.mime_type"]);
        s.assert_nothing_is_left().await;
    });
}

#[test]
fn a_corrected_type_is_told_and_a_finer_name_is_kept() {
    service_test_with(firm("general"), |s| async move {
        let olga = olga(&s);
        let wrong = put(&olga, "", ("a.pdf", "application/pdf", PNG.2)).await.unwrap();
        assert_eq!(wrong.file.as_ref().unwrap().mime_type, "image/png");
        assert_eq!(wrong.file.as_ref().unwrap().declared_mime_type, "application/pdf");
        assert_eq!(wrong.warnings[0].code(), WarningCode::TypeCorrected);
        for (sample, mime_type) in [
            (("a.csv", "text/csv", TEXT.2), "text/csv"),
            (("a.json", "application/json", TEXT.2), "application/json"),
            (("a.xls", XLS.1, XLS.2), XLS.1),
            (("a.docx", DOCX.1, ZIP), DOCX.1),
            (("a.png", "binary/octet-stream", PNG.2), "image/png"),
            (("a.png", "not a type", PNG.2), "image/png"),
        ] {
            let answer = put(&olga, "", sample).await.unwrap();
            assert_eq!((answer.file.unwrap().mime_type.as_str(), answer.warnings.len()), (mime_type, 0));
        }
    });
}

#[test]
fn in_a_workspace_nobody_hides_a_colleagues_file_from_themselves() {
    service_test_with(firm("workspace"), |s| async move {
        let id = file_id(&put(&olga(&s), "", PDF).await.unwrap());
        let file = |visibility: Visibility| File {
            id: id.clone(),
            visibility: visibility.into(),
            ..File::default()
        };
        for hidden in [Visibility::Owner, Visibility::Managers] {
            let refused = colin(&s).update(file(hidden), &["visibility"]).await.unwrap_err();
            assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "NOT_ALLOWED"));
        }
        boss(&s).update(file(Visibility::Managers), &["visibility"]).await.unwrap();
        assert_eq!(colin(&s).get(&id).await.unwrap_err().code(), Code::NotFound);
        olga(&s).update(file(Visibility::Owner), &["visibility"]).await.unwrap();
        anna(&s).update(file(Visibility::Organization), &["visibility"]).await.unwrap();
    });
}

#[test]
fn in_a_workspace_nobody_shows_a_colleagues_file_to_more_people_than_its_owner_did() {
    service_test_with(firm("workspace"), |s| async move {
        let upload = UploadSpec { visibility: Visibility::Managers.into(), ..spec("plan.txt") };
        let id = file_id(&olga(&s).upload(upload, b"x").await.unwrap());
        for visibility in [Visibility::Organization, Visibility::Public] {
            let shown = File { id: id.clone(), visibility: visibility.into(), ..File::default() };
            let refused = boss(&s).update(shown.clone(), &["visibility"]).await.unwrap_err();
            assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "NOT_ALLOWED"));
            olga(&s).update(shown, &["visibility"]).await.unwrap();
        }
    });
}

#[test]
fn in_crm_whoever_a_file_is_shared_with_sees_it() {
    service_test_with(firm("crm"), |s| async move {
        let id = file_id(&put(&olga(&s), "", PDF).await.unwrap());
        assert_eq!(colin(&s).get(&id).await.unwrap_err().code(), Code::NotFound);
        let share = "INSERT INTO file_readers (tenant_id, principal, file_id, create_time, name, size_bytes)
                     SELECT tenant_id, 'user:colin', id, create_time, name, size_bytes FROM files";
        s.owner.run(share).await;
        assert_eq!(colin(&s).read(&id).await.unwrap(), *PDF.2);
        assert_eq!(colin(&s).names(ListFilesRequest::default()).await, ["a.pdf"]);
        assert_eq!(colin(&s).delete(&id).await.unwrap_err().code(), Code::PermissionDenied);
    });
}
