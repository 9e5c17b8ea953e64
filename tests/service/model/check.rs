//! Comparisons of the service with the model, through its API and through the quota rows in the database.

use std::sync::atomic::Ordering;

use strongroom::proto::v1::{FileState, ListFilesRequest};

use super::{
    draw::PEOPLE,
    expected::{File, Tenant},
    sharing::assert_links,
};
use crate::harness::{Caller, Identity, Service, reason, sha256};

pub(super) fn caller_for(s: &Service, tenant: &Tenant, person: &super::expected::Person) -> Caller {
    s.caller(Identity {
        user: person.user.to_owned(),
        organization: Some(tenant.organization.clone()),
        role: Some(person.role.to_owned()),
        scope: (person.role == "admin").then(|| "credits:write".to_owned()),
        ..Identity::default()
    })
}

/// Asserts that the quota row and the usage counters match the model. A failed call releases its reservation
/// in the background, so this waits for reservations; charges must match immediately.
pub(super) async fn assert_quota(s: &Service, server: &Service, tenant: &Tenant) {
    let admin = caller_for(server, tenant, &PEOPLE[2]);
    let expected = (tenant.reserved_bytes(), tenant.reserved_file_count());
    let what = format!("reservations of {} are {expected:?}", tenant.organization);
    let is_expected = || async {
        let row = s.quota_row(&admin).await;
        (row.reserved_bytes, row.reserved_file_count) == expected
    };
    s.wait_until(&what, is_expected).await;
    let row = s.quota_row(&admin).await;
    tenant.pending_deletion_bytes.store(row.pending_deletion_bytes, Ordering::Relaxed);
    let expected = (tenant.limit_bytes, tenant.used_bytes(), tenant.file_count());
    assert_eq!((row.limit_bytes, row.used_bytes, row.file_count), expected, "limit, used, files");
    let usage = admin.usage().await.unwrap();
    let counted = usage
        .entries
        .iter()
        .fold((0, 0), |(bytes, files), entry| (bytes + entry.total_bytes, files + entry.file_count));
    assert_eq!(counted, (tenant.used_bytes(), tenant.file_count()), "usage counters");
}

/// Asserts that the balances and the ledgers of all users match.
async fn assert_credits(admin: &Caller, tenant: &Tenant) {
    for person in &PEOPLE {
        let credits = admin.credits("", person.user).await.unwrap();
        assert_eq!(credits.balance, tenant.credits_of(person.user), "credits of {}", person.user);
        let entries = admin.credit_entries(person.user, 3).await.unwrap();
        let amounts: Vec<i64> = entries.iter().rev().map(|entry| entry.amount).collect();
        let expected = tenant.credits.get(person.user).cloned().unwrap_or_default();
        assert_eq!(amounts, expected, "entries of {}", person.user);
    }
}

/// Asserts that each person lists the names of the model, in order.
pub(super) async fn assert_names(server: &Service, tenant: &Tenant) {
    for person in &PEOPLE {
        let by_name = ListFilesRequest { order_by: "name".to_owned(), page_size: 3, ..Default::default() };
        let listed = caller_for(server, tenant, person).list_names(by_name).await;
        let live = tenant.files.values().filter(|file| file.purge_time.is_none());
        let mut expected: Vec<&str> = live.map(|file| file.name.as_str()).collect();
        expected.sort_unstable();
        assert_eq!(listed, expected, "names visible to {}", person.user);
    }
}

/// Asserts that the whole state of a tenant matches: quota, names, all versions with their bytes, and open
/// uploads.
pub(super) async fn assert_tenant(s: &Service, server: &Service, tenant: &Tenant, now: i64) {
    assert_quota(s, server, tenant).await;
    assert_names(server, tenant).await;
    let admin = caller_for(server, tenant, &PEOPLE[2]);
    assert_credits(&admin, tenant).await;
    assert_links(server, tenant).await;
    for (id, file) in &tenant.files {
        assert_file(&admin, id, file).await;
    }
    let rows = "SELECT f.id::text FROM files f WHERE f.tenant_id = $1::text::uuid ORDER BY f.id::text";
    let rows = s.superuser.query_rows(rows, &[&admin.tenant_id().await]).await;
    let ids: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(ids, tenant.files.keys().cloned().collect::<Vec<_>>(), "files in the database");
    let open = tenant.uploads.iter().filter(|(_, upload)| upload.lease_expire_time > now);
    let open: Vec<&String> = open.map(|(id, _)| id).collect();
    let mut listed = admin.list_upload_ids(10).await;
    listed.sort();
    assert_eq!(listed.iter().collect::<Vec<_>>(), open, "open uploads");
    for id in open {
        let persisted_bytes = admin.get_upload(id).await.unwrap().persisted_size_bytes;
        assert_eq!(persisted_bytes, tenant.uploads[id].persisted_bytes as i64, "persisted bytes of {id}");
    }
}

async fn assert_file(admin: &Caller, id: &str, file: &File) {
    let actual = admin.get(id).await.unwrap();
    let state = match (file.purge_time, file.is_archived) {
        (Some(_), _) => FileState::Deleted,
        (None, true) => FileState::Archived,
        (None, false) => FileState::Available,
    };
    let current = file.versions[&file.current];
    let fields =
        (actual.name.as_str(), actual.version, actual.state(), actual.size_bytes, actual.owner_id.as_str());
    assert_eq!(
        fields,
        (file.name.as_str(), file.current, state, current.len as i64, file.owner),
        "file {id}"
    );
    assert_eq!(actual.etag, file.etag, "etag of {id}");
    assert_eq!(actual.sha256, sha256(&current.bytes()), "digest of {id}");
    let versions = admin.list_versions(id, 2).await.unwrap();
    let numbers: Vec<i32> = versions.iter().map(|version| version.version).collect();
    assert_eq!(numbers, file.versions.keys().rev().copied().collect::<Vec<_>>(), "versions of {id}");
    for (version, content) in &file.versions {
        match (state, admin.read_version(id, *version).await) {
            (FileState::Available, read) => {
                assert!(read.unwrap() == content.bytes(), "bytes of version {version} of {id}");
            }
            (FileState::Archived, read) => assert_eq!(reason(&read.unwrap_err()), "FILE_NOT_AVAILABLE"),
            (_, read) => assert_eq!(reason(&read.unwrap_err()), "FILE_DELETED"),
        }
    }
}
