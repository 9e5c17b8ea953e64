//! The policy presets. Each test checks the limits and rules of one preset through the API.

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

/// The name, declared content type and bytes of a file.
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

/// The expected limits and rules of a preset.
struct Preset {
    name: &'static str,
    limit_bytes: i64,
    file_count_max: i64,
    /// For images, videos, audio, documents and other files.
    file_size_max_bytes: [i64; 5],
    accepted: &'static [Sample],
    rejected: &'static [Sample],
    colleagues_see: bool,
    colleagues_write: bool,
    /// 0 if deleted files are purged at once.
    trash_days: i64,
    trash_counts: bool,
    scan_required: bool,
}

/// Configures the organization `firm` with a preset.
fn configure_firm(preset: &'static str) -> impl FnOnce(&mut Config) {
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

async fn upload_sample(
    caller: &Caller,
    category: &str,
    sample: Sample,
) -> Result<UploadFileResponse, Status> {
    let (name, mime_type, bytes) = sample;
    let spec = UploadSpec { mime_type: mime_type.to_owned(), category: category.to_owned(), ..spec(name) };
    caller.upload(spec, bytes).await
}

/// Checks all rules of a preset.
fn check_preset(preset: Preset) {
    let (name, scan_required) = (preset.name, preset.scan_required);
    service_test_with(configure_firm(name), |s| async move {
        check_limits(&s, &preset).await;
        check_content_types(&s, &preset).await;
        let first = preset.accepted[0];
        check_access_of_colleagues(&s, &preset, first).await;
        check_trash(&s, &preset, first).await;
    });
    let without_scanner = move |config: &mut Config| {
        configure_firm(name)(config);
        config.scanning.accept_unscanned = false;
    };
    service_test_with(without_scanner, |s| async move {
        let uploaded = olga(&s).upload(spec("a.pdf"), PDF.2).await;
        let is_refused = uploaded.as_ref().is_err_and(|status| reason(status) == "SCAN_REQUIRED");
        assert!(if scan_required { is_refused } else { uploaded.is_ok() }, "{name}: {uploaded:?}");
    });
}

async fn check_limits(s: &Service, preset: &Preset) {
    let quota = anna(s).quota().await.unwrap();
    assert_eq!((quota.limit_bytes, quota.file_count_max), (preset.limit_bytes, preset.file_count_max));
    assert_eq!((quota.ceiling_bytes, quota.ceiling_file_count), (preset.limit_bytes, preset.file_count_max));
    assert_eq!((quota.warning_percent, quota.critical_percent), (80, 95));
    let [image_bytes, video_bytes, audio_bytes, document_bytes, other_bytes] = preset.file_size_max_bytes;
    let limits = FileSizeLimits { image_bytes, video_bytes, audio_bytes, document_bytes, other_bytes };
    assert_eq!(quota.file_size_max_bytes, Some(limits));
    let too_large = preset.file_size_max_bytes.iter().max().unwrap() + 1;
    let spec = UploadSpec { size_bytes: Some(too_large), ..spec("large.pdf") };
    assert_eq!(reason(&olga(s).upload(spec, b"").await.unwrap_err()), "FILE_TOO_LARGE");
}

async fn check_content_types(s: &Service, preset: &Preset) {
    for sample in preset.accepted {
        let response = upload_sample(&olga(s), "", *sample).await;
        let response =
            response.unwrap_or_else(|status| panic!("{} rejected {}: {status:?}", preset.name, sample.0));
        assert_eq!(response.warnings, [], "{}", sample.0);
    }
    for sample in preset.rejected {
        let result = upload_sample(&olga(s), "", *sample).await;
        let error = result.map_or_else(|status| status, |_| panic!("{} accepted {}", preset.name, sample.0));
        let field = &violated_fields(&error)[0];
        assert_eq!(error.code(), Code::InvalidArgument, "{}", sample.0);
        assert!(["spec.name", "spec.mime_type"].contains(&field.as_str()), "{}: {field}", sample.0);
    }
}

async fn check_access_of_colleagues(s: &Service, preset: &Preset, sample: Sample) {
    let id = file_id(&upload_sample(&olga(s), "", sample).await.unwrap());
    assert!(anna(s).get(&id).await.is_ok() && olga(s).get(&id).await.is_ok());
    for colleague in [colin(s), boss(s)] {
        let listed = colleague.list_names(ListFilesRequest::default()).await;
        assert_eq!(listed.contains(&sample.0.to_owned()), preset.colleagues_see, "{}", preset.name);
        let read = colleague.read(&id).await.map(|_| ());
        if !preset.colleagues_see {
            assert_eq!(read.unwrap_err().code(), Code::NotFound);
            assert_eq!(colleague.rename(&id, "b.pdf").await.unwrap_err().code(), Code::NotFound);
            continue;
        }
        read.unwrap();
        let changes = [
            colleague.rename(&id, "b.pdf").await.map(|_| ()),
            colleague.archive(&id).await.map(|_| ()),
            colleague.unarchive(&id).await.map(|_| ()),
        ];
        for change in changes {
            match change {
                Ok(()) => assert!(preset.colleagues_write, "{}", preset.name),
                Err(status) => {
                    assert!(!preset.colleagues_write, "{}: {status:?}", preset.name);
                    assert_eq!(
                        (status.code(), reason(&status).as_str()),
                        (Code::PermissionDenied, "NOT_ALLOWED")
                    );
                }
            }
        }
        assert_eq!(colleague.purge(&id).await.is_ok(), preset.colleagues_write, "{}", preset.name);
        if preset.colleagues_write {
            return;
        }
    }
    anna(s).rename(&id, "by the admin.pdf").await.unwrap();
    olga(s).purge(&id).await.unwrap();
}

async fn check_trash(s: &Service, preset: &Preset, sample: Sample) {
    let olga = olga(s);
    let id = file_id(&upload_sample(&olga, "", sample).await.unwrap());
    let before = olga.quota().await.unwrap().used_bytes;
    let deleted = olga.delete(&id).await.unwrap();
    let freed = before - olga.quota().await.unwrap().used_bytes;
    if preset.trash_days == 0 {
        assert_eq!(deleted, None, "deleted files are purged at once");
        assert_eq!(olga.get(&id).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(freed, sample.2.len() as i64);
        return;
    }
    let deleted = deleted.unwrap();
    let trash_seconds = deleted.purge_time.unwrap().seconds - deleted.delete_time.unwrap().seconds;
    assert_eq!((deleted.state(), trash_seconds), (FileState::Deleted, preset.trash_days * 24 * 3600));
    assert_eq!(freed == 0, preset.trash_counts, "{}", preset.name);
    olga.undelete(&id).await.unwrap();
    assert_eq!(olga.quota().await.unwrap().used_bytes, before);
}

#[test]
fn general_preset_sets_limits_and_rules() {
    check_preset(Preset {
        name: "general",
        limit_bytes: 100 * GIB,
        file_count_max: 1_000_000,
        file_size_max_bytes: [5 * GIB; 5],
        accepted: &[PDF, PNG, TEXT, ("a.zip", "application/zip", ZIP)],
        rejected: &[PROGRAM],
        colleagues_see: true,
        colleagues_write: false,
        trash_days: 30,
        trash_counts: true,
        scan_required: false,
    });
}

#[test]
fn workspace_preset_sets_limits_and_rules() {
    check_preset(Preset {
        name: "workspace",
        limit_bytes: 100 * GIB,
        file_count_max: 1_000_000,
        file_size_max_bytes: [5 * GIB; 5],
        accepted: &[PDF, PNG, TEXT, ("a.zip", "application/zip", ZIP), PROGRAM],
        rejected: &[],
        colleagues_see: true,
        colleagues_write: true,
        trash_days: 0,
        trash_counts: true,
        scan_required: false,
    });
}

#[test]
fn crm_preset_sets_limits_and_rules() {
    check_preset(Preset {
        name: "crm",
        limit_bytes: 107_374_182_400,
        file_count_max: 0,
        file_size_max_bytes: [50 * MIB, 500 * MIB, 100 * MIB, 100 * MIB, 50 * MIB],
        accepted: &[PDF, DOC, DOCX, XLS, XLSX, JPEG, PNG, GIF, WEBP, SVG, MP4, MP3],
        rejected: &[PROGRAM, TEXT, WEBM, ("a.zip", "application/zip", ZIP), ("a.docx", DOCX.1, ZIP)],
        colleagues_see: false,
        colleagues_write: false,
        trash_days: 30,
        trash_counts: false,
        scan_required: true,
    });
}

#[test]
fn education_preset_sets_limits_and_rules() {
    check_preset(Preset {
        name: "education",
        limit_bytes: GIB,
        file_count_max: 10_000,
        file_size_max_bytes: [50 * MIB, 500 * MIB, 100 * MIB, 100 * MIB, 100 * MIB],
        accepted: &[PDF, PNG, TEXT],
        rejected: &[PROGRAM, ("a.zip", "application/zip", ZIP), ("a.dmg", "", b"x")],
        // In the default category; `list_education` covers the others.
        colleagues_see: true,
        colleagues_write: false,
        trash_days: 30,
        trash_counts: false,
        scan_required: true,
    });
}

#[test]
fn images_preset_sets_limits_and_rules() {
    check_preset(Preset {
        name: "images",
        limit_bytes: 100 * GIB,
        file_count_max: 1_000_000,
        file_size_max_bytes: [10 * MIB, 100 * MIB, 0, 50 * MIB, 50 * MIB],
        accepted: &[PNG, JPEG, WEBP],
        rejected: &[GIF, SVG, MP4, PDF, MP3, TEXT, PROGRAM],
        colleagues_see: false,
        colleagues_write: false,
        trash_days: 30,
        trash_counts: false,
        scan_required: true,
    });
}

#[test]
fn images_categories_have_own_types_and_visibility() {
    service_test_with(configure_firm("images"), |s| async move {
        let olga = olga(&s);
        let cases: [(&str, &[Sample], &[Sample], bool); 4] = [
            ("course-thumbnails", &[JPEG, PNG, WEBP], &[SVG, MP4], false),
            ("profile-pictures", &[JPEG, PNG, WEBP], &[SVG, GIF], false),
            ("public-pages", &[JPEG, PNG, WEBP, SVG], &[GIF, MP4], true),
            ("videos", &[MP4, WEBM, MOV], &[PNG, MP3], false),
        ];
        for (category, accepted, rejected, is_public) in cases {
            for sample in accepted {
                let response = upload_sample(&olga, category, *sample).await;
                let file = response
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
            for sample in rejected {
                let error = upload_sample(&olga, category, *sample).await.unwrap_err();
                assert_eq!(violated_fields(&error), ["spec.mime_type"], "{category} {}", sample.0);
            }
        }
        let error = upload_sample(&olga, "avatar", PNG).await.unwrap_err();
        assert_eq!(violated_fields(&error), ["spec.category"]);
    });
}

#[test]
fn allowed_types_match_bytes_before_declared_type() {
    service_test_with(configure_firm("crm"), |s| async move {
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
        for (sample, is_accepted) in cases {
            let response = upload_sample(&olga, "", sample).await;
            assert_eq!(response.is_ok(), is_accepted, "{} as {}: {response:?}", sample.0, sample.1);
        }
        assert_eq!(
            s.store.list("", None, 100).await.unwrap().objects.len(),
            4,
            "rejected uploads leave no objects"
        );
    });
}

#[test]
fn allowed_types_apply_to_small_resumable_uploads() {
    service_test_with(configure_firm("crm"), |s| async move {
        let olga = olga(&s);
        let upload = olga.create_upload(spec("a.pdf")).await.unwrap();
        let error = olga.resume_upload(&upload.id, ZIP, 0, true).await.unwrap_err();
        assert_eq!(violated_fields(&error), ["spec.mime_type"]);
        let error = olga.upload_part(&upload.id, 0, ZIP).await.unwrap_err();
        assert_eq!(violated_fields(&error), ["spec.mime_type"]);
        assert_eq!(olga.get_upload(&upload.id).await.unwrap().persisted_size_bytes, 0);
        olga.cancel_upload(&upload.id).await.unwrap();

        // The bytes of an old Office file are ambiguous; a version then gets its type from the name of the
        // file.
        let id = file_id(&upload_sample(&olga, "", (XLS.0, "", XLS.2)).await.unwrap());
        olga.upload_version(&id, XLS.2).await.unwrap();
    });
}

#[test]
fn copy_obeys_allowed_types_of_target_category() {
    service_test_with(configure_firm("images"), |s| async move {
        let id = file_id(&upload_sample(&olga(&s), "videos", MP4).await.unwrap());
        let into = |category: &str| CopyFileRequest {
            file_id: id.clone(),
            category: category.to_owned(),
            ..CopyFileRequest::default()
        };
        let error = olga(&s).copy(into("profile-pictures")).await.unwrap_err();
        assert_eq!(violated_fields(&error), ["category"]);
        olga(&s).copy(into("videos")).await.unwrap();
    });
}

#[test]
fn allowed_types_are_checked_before_upload_ends() {
    service_test_with(configure_firm("crm"), |s| async move {
        let text = vec![b'a'; 200_000];
        let error = olga(&s).upload(UploadSpec { size_bytes: Some(200_000), ..spec("a.pdf") }, &text).await;
        assert_eq!(violated_fields(&error.unwrap_err()), ["spec.mime_type"]);
        s.assert_nothing_is_left().await;
    });
}

#[test]
fn corrected_type_warns_and_specific_type_is_kept() {
    service_test_with(configure_firm("general"), |s| async move {
        let olga = olga(&s);
        let wrong = upload_sample(&olga, "", ("a.pdf", "application/pdf", PNG.2)).await.unwrap();
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
            let response = upload_sample(&olga, "", sample).await.unwrap();
            assert_eq!((response.file.unwrap().mime_type.as_str(), response.warnings.len()), (mime_type, 0));
        }
    });
}

#[test]
fn workspace_member_cannot_hide_file_from_self() {
    service_test_with(configure_firm("workspace"), |s| async move {
        let id = file_id(&upload_sample(&olga(&s), "", PDF).await.unwrap());
        let file = |visibility: Visibility| File {
            id: id.clone(),
            visibility: visibility.into(),
            ..File::default()
        };
        for hidden in [Visibility::Owner, Visibility::Managers] {
            let error = colin(&s).update(file(hidden), &["visibility"]).await.unwrap_err();
            assert_eq!((error.code(), reason(&error).as_str()), (Code::PermissionDenied, "NOT_ALLOWED"));
        }
        boss(&s).update(file(Visibility::Managers), &["visibility"]).await.unwrap();
        assert_eq!(colin(&s).get(&id).await.unwrap_err().code(), Code::NotFound);
        olga(&s).update(file(Visibility::Owner), &["visibility"]).await.unwrap();
        anna(&s).update(file(Visibility::Organization), &["visibility"]).await.unwrap();
    });
}

#[test]
fn workspace_colleague_cannot_widen_visibility() {
    service_test_with(configure_firm("workspace"), |s| async move {
        let upload = UploadSpec { visibility: Visibility::Managers.into(), ..spec("plan.txt") };
        let id = file_id(&olga(&s).upload(upload, b"x").await.unwrap());
        for visibility in [Visibility::Organization, Visibility::Public] {
            let shown = File { id: id.clone(), visibility: visibility.into(), ..File::default() };
            let error = boss(&s).update(shown.clone(), &["visibility"]).await.unwrap_err();
            assert_eq!((error.code(), reason(&error).as_str()), (Code::PermissionDenied, "NOT_ALLOWED"));
            olga(&s).update(shown, &["visibility"]).await.unwrap();
        }
    });
}

#[test]
fn crm_file_is_visible_to_users_it_is_shared_with() {
    service_test_with(configure_firm("crm"), |s| async move {
        let id = file_id(&upload_sample(&olga(&s), "", PDF).await.unwrap());
        assert_eq!(colin(&s).get(&id).await.unwrap_err().code(), Code::NotFound);
        let share = "INSERT INTO file_readers (tenant_id, principal, file_id, create_time, name, size_bytes)
                     SELECT tenant_id, 'user:colin', id, create_time, name, size_bytes FROM files";
        s.superuser.execute(share).await;
        assert_eq!(colin(&s).read(&id).await.unwrap(), *PDF.2);
        assert_eq!(colin(&s).list_names(ListFilesRequest::default()).await, ["a.pdf"]);
        assert_eq!(colin(&s).delete(&id).await.unwrap_err().code(), Code::PermissionDenied);
    });
}
