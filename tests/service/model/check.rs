//! Whether the service has what the model has: asked of the service, as its callers see it, and of the books in the database.

use strongroom::proto::v1::{FileState, ListFilesRequest};

use super::{
    books::{File, Tenant},
    draw::PEOPLE,
};
use crate::harness::{Caller, Service, reason, sha256};

pub(super) fn caller(s: &Service, tenant: &Tenant, who: &super::books::Who) -> Caller {
    s.member(who.user, &tenant.organization, who.role, &[])
}

/// The quota row, and the counters of the usage report. What a failed call held is given back beside it, so this waits for
/// reservations; what is charged must be right at once.
pub(super) async fn books(s: &Service, working: &Service, tenant: &Tenant) {
    let admin = caller(working, tenant, &PEOPLE[2]);
    let expected = (tenant.reserved(), tenant.reserved_count());
    let what = format!("reservations of {} are {expected:?}", tenant.organization);
    let reserved = || async {
        let book = s.book(&admin).await;
        (book.reserved_bytes, book.reserved_file_count) == expected
    };
    s.until(&what, reserved).await;
    let book = s.book(&admin).await;
    let expected = (tenant.limit, tenant.used(), tenant.file_count());
    assert_eq!((book.limit_bytes, book.used_bytes, book.file_count), expected, "limit, used, files");
    let usage = admin.usage().await.unwrap();
    let counted = usage
        .entries
        .iter()
        .fold((0, 0), |(bytes, files), entry| (bytes + entry.total_bytes, files + entry.file_count));
    assert_eq!(counted, (tenant.used(), tenant.file_count()), "the counters of usage");
}

/// The names that are listed are those of the model, in order, and nothing else.
pub(super) async fn names(working: &Service, tenant: &Tenant) {
    for who in &PEOPLE {
        let by_name = ListFilesRequest { order_by: "name".to_owned(), page_size: 3, ..Default::default() };
        let listed = caller(working, tenant, who).names(by_name).await;
        let live = tenant.files.values().filter(|file| file.purge_time.is_none());
        let mut expected: Vec<&str> = live.map(|file| file.name.as_str()).collect();
        expected.sort_unstable();
        assert_eq!(listed, expected, "names that {} sees", who.user);
    }
}

/// Everything: books, names, and every version of every file with its bytes, and how far uploads have come.
pub(super) async fn all(s: &Service, working: &Service, tenant: &Tenant, now: i64) {
    books(s, working, tenant).await;
    names(working, tenant).await;
    let admin = caller(working, tenant, &PEOPLE[2]);
    for (id, file) in &tenant.files {
        one(&admin, id, file).await;
    }
    let rows = "SELECT f.id::text FROM files f WHERE f.tenant_id = $1::text::uuid ORDER BY f.id::text";
    let rows = s.owner.rows(rows, &[&admin.tenant_id().await]).await;
    let ids: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(ids, tenant.files.keys().cloned().collect::<Vec<_>>(), "files in the database");
    let open = tenant.uploads.iter().filter(|(_, upload)| upload.until > now);
    let open: Vec<&String> = open.map(|(id, _)| id).collect();
    let mut listed = admin.uploads(10).await;
    listed.sort();
    assert_eq!(listed.iter().collect::<Vec<_>>(), open, "open uploads");
    for id in open {
        let persisted = admin.upload_at(id).await.unwrap().persisted_size_bytes;
        assert_eq!(persisted, tenant.uploads[id].persisted as i64, "persisted bytes of {id}");
    }
}

async fn one(admin: &Caller, id: &str, file: &File) {
    let told = admin.get(id).await.unwrap();
    let state = match (file.purge_time, file.is_archived) {
        (Some(_), _) => FileState::Deleted,
        (None, true) => FileState::Archived,
        (None, false) => FileState::Available,
    };
    let current = file.versions[&file.current];
    let got = (told.name.as_str(), told.version, told.state(), told.size_bytes, told.owner_id.as_str());
    assert_eq!(got, (file.name.as_str(), file.current, state, current.len as i64, file.owner), "file {id}");
    assert_eq!(told.etag, file.etag, "etag of {id}");
    assert_eq!(told.sha256, sha256(&current.bytes()), "digest of {id}");
    let versions = admin.versions(id, 2).await.unwrap();
    let numbers: Vec<i32> = versions.iter().map(|version| version.version).collect();
    assert_eq!(numbers, file.versions.keys().rev().copied().collect::<Vec<_>>(), "versions of {id}");
    for (version, content) in &file.versions {
        match (state, admin.read_version(id, *version).await) {
            (FileState::Available, read) => {
                assert!(read.unwrap() == content.bytes(), "the bytes of version {version} of {id}");
            }
            (FileState::Archived, read) => assert_eq!(reason(&read.unwrap_err()), "FILE_NOT_AVAILABLE"),
            (_, read) => assert_eq!(reason(&read.unwrap_err()), "FILE_DELETED"),
        }
    }
}
