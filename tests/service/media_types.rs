//! Media types of the files that people have: photos and voice memos of phones, and text of many kinds.

use strongroom::proto::v1::{Category, FileFilter, ListFilesRequest, UploadSpec, Visibility};

use crate::{
    categories::category,
    harness::{Service, service_test, spec, violated_fields},
};

const HEIC: &[u8] = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic\0\0\0\x08mdat";
const M4A: &[u8] = b"\0\0\0\x18ftypM4A \0\0\0\0M4A mp42\0\0\0\x08mdat";
/// An MP4 file that does not show whether it has audio or video.
const MP4: &[u8] = b"\0\0\0\x1cftypisom\0\0\x02\0isomiso2mp41\0\0\0\x08free\0\0\x84\xfbmdat";
const TEXT: &[u8] = b"one,two\n1,2\n";
const LATIN1: &[u8] = b"nom;pr\xe9nom\r\nZo\xe9;Ren\xe9e\r\n";
const UTF16: &[u8] = b"\xff\xfea\0,\0b\0\n\0";

/// Uploads content to the category `closed` with this name and declared type.
async fn upload(s: &Service, name: &str, declared: &str, data: &[u8]) -> Result<String, Vec<String>> {
    let spec = UploadSpec { category: "closed".to_owned(), mime_type: declared.to_owned(), ..spec(name) };
    match s.alice().upload(spec, data).await {
        Ok(response) => Ok(response.file.unwrap().mime_type),
        Err(status) => Err(violated_fields(&status)),
    }
}

async fn create_closed_category(s: &Service, types: &[&str]) {
    let types = types.iter().map(|name| (*name).to_owned()).collect();
    let closed = Category { types, ..category("closed", Visibility::Organization) };
    s.ada().create_category(closed).await.unwrap();
}

#[test]
fn closed_list_takes_aliases_and_text_of_its_types() {
    service_test(|s| async move {
        create_closed_category(&s, &["image/heif", "audio/x-m4a", "text/csv", "application/json"]).await;
        for (name, declared, data, mime_type) in [
            ("IMG_1.HEIC", "", HEIC, "image/heic"),
            ("IMG_1.HEIC", "image/heif", HEIC, "image/heic"),
            ("memo.m4a", "audio/mp4", M4A, "audio/mp4"),
            ("memo.m4a", "", M4A, "audio/mp4"),
            ("memo.mp4", "audio/mp4", MP4, "audio/mp4"),
            ("memo.m4a", "", MP4, "audio/mp4"),
            ("data.csv", "", TEXT, "text/csv"),
            ("data", "text/csv", TEXT, "text/csv"),
            ("data", "application/csv", TEXT, "application/csv"),
            ("data.csv", "application/vnd.ms-excel", TEXT, "text/csv"),
            ("data.csv", "", LATIN1, "text/csv"),
            ("data.csv", "application/octet-stream", UTF16, "text/csv"),
            ("data.json", "", b"{}", "application/json"),
        ] {
            assert_eq!(upload(&s, name, declared, data).await.as_deref(), Ok(mime_type), "{name} {declared}");
        }
        for (name, declared, data) in [
            ("notes.txt", "", TEXT),
            ("data.csv", "", HEIC.split_at(4).1),
            ("film.mp4", "", MP4),
            ("film.mp4", "video/mp4", MP4),
            ("data.csv", "", b"\0\x01\x02\x03".as_slice()),
            ("page.html", "text/html", b"<html></html>"),
        ] {
            let refused = upload(&s, name, declared, data).await;
            assert_eq!(refused, Err(vec!["spec.mime_type".to_owned()]), "{name} {declared}");
        }
    });
}

#[test]
fn list_filter_finds_files_by_aliases() {
    service_test(|s| async move {
        let alice = s.alice();
        let count = async |mime_type: &str| {
            let filter = FileFilter { mime_types: vec![mime_type.to_owned()], ..FileFilter::default() };
            let request = ListFilesRequest { filter: Some(filter), ..ListFilesRequest::default() };
            alice.list_names(request).await.len()
        };
        alice.upload(spec("photo"), HEIC).await.unwrap();
        alice.upload(spec("memo"), M4A).await.unwrap();
        // As an earlier release recorded it.
        for table in ["files", "versions"] {
            let rename = format!("UPDATE {table} SET mime_type = 'audio/m4a' WHERE mime_type = 'audio/mp4'");
            s.superuser.execute(&rename).await;
        }
        for mime_type in ["image/heic", "image/heif", "audio/mp4", "audio/x-m4a", "audio/*"] {
            assert_eq!(count(mime_type).await, 1, "{mime_type}");
        }
        assert_eq!(count("audio/mpeg").await, 0);
    });
}

#[test]
fn undeclared_text_in_older_encodings_is_text() {
    service_test(|s| async move {
        for data in [LATIN1, UTF16, TEXT] {
            let file = s.alice().upload(spec("notes"), data).await.unwrap().file.unwrap();
            assert_eq!(file.mime_type, "text/plain", "{data:?}");
        }
    });
}
