//! `ListFiles`: orders, page sizes, filters, totals and page tokens.

use chrono::Duration;
use prost_types::{Struct, Timestamp, Value, value::Kind};
use strongroom::{
    domain::clock::Clock,
    proto::v1::{EntityRef, File, FileFilter, FileState, FileView, ListFilesRequest, ScanStatus, UploadSpec},
};
use tonic::Code;

use crate::harness::{
    Caller, Service, file_id, reason, service_test, service_test_with, sha256, spec, violated_fields,
};

pub(crate) const ORDERS: [&str; 6] =
    ["create_time desc", "create_time", "name", "name desc", "size_bytes", "size_bytes desc"];

fn request(order_by: &str, page_size: i32) -> ListFilesRequest {
    ListFilesRequest { order_by: order_by.to_owned(), page_size, ..Default::default() }
}

fn filtered(filter: FileFilter) -> ListFilesRequest {
    ListFilesRequest { filter: Some(filter), ..request("name", 0) }
}

/// Reads all pages.
async fn list_all(caller: &Caller, mut request: ListFilesRequest) -> Vec<File> {
    let mut files = Vec::new();
    loop {
        let page = caller.list(request.clone()).await.unwrap();
        assert!(page.files.len() <= request.page_size.max(20) as usize);
        files.extend(page.files);
        if page.next_page_token.is_empty() {
            return files;
        }
        request.page_token = page.next_page_token;
    }
}

fn sort_key(file: &File, order_by: &str) -> (i64, Vec<u8>) {
    let time = file.create_time.unwrap();
    match order_by.trim_end_matches(" desc") {
        "create_time" => (time.seconds, Vec::new()),
        "size_bytes" => (file.size_bytes, Vec::new()),
        _ => (0, file.name.clone().into_bytes()),
    }
}

/// Uploads files whose names sort differently by bytes than in any language, with ties in every sort key.
async fn upload_files_with_ties(s: &Service) {
    for (n, name) in
        ["b", "B", "a", "ä", "Z", "10", "9", "b", "_", "文", "b", "é", "zz", "a b"].iter().enumerate()
    {
        if n % 3 == 0 {
            s.clock.advance(Duration::seconds(1));
        }
        let caller = if n % 2 == 0 { s.alice() } else { s.bob() };
        caller.upload(spec(name), &vec![b'x'; n % 4]).await.unwrap();
    }
}

#[test]
fn every_order_and_page_size_lists_each_file_once() {
    service_test(|s| async move {
        upload_files_with_ties(&s).await;
        let bob = s.bob();
        for order_by in ORDERS {
            for page_size in [1, 2, 3, 5, 13, 14, 15, 1000] {
                let files = list_all(&bob, request(order_by, page_size)).await;
                let mut ids: Vec<&str> = files.iter().map(|file| file.id.as_str()).collect();
                ids.sort_unstable();
                ids.dedup();
                assert_eq!((files.len(), ids.len()), (14, 14), "{order_by} by {page_size}");
                let is_sorted = if order_by.ends_with(" desc") {
                    files.is_sorted_by_key(|file| std::cmp::Reverse(sort_key(file, order_by)))
                } else {
                    files.is_sorted_by_key(|file| sort_key(file, order_by))
                };
                assert!(is_sorted, "{order_by} by {page_size}");
            }
        }
        assert_eq!(
            list_all(&bob, request("", 5)).await,
            list_all(&bob, request("create_time desc", 5)).await
        );
    });
}

#[test]
fn changes_between_pages_neither_repeat_nor_hide_files() {
    service_test(|s| async move {
        upload_files_with_ties(&s).await;
        let alice = s.ada();
        for order_by in ORDERS {
            let before: Vec<String> =
                list_all(&alice, request(order_by, 1000)).await.into_iter().map(|f| f.id).collect();
            let mut list_request = request(order_by, 2);
            let (mut seen, mut deleted) = (Vec::new(), None);
            loop {
                let page = alice.list(list_request.clone()).await.unwrap();
                seen.extend(page.files.into_iter().map(|file| file.id));
                if page.next_page_token.is_empty() {
                    break;
                }
                list_request.page_token = page.next_page_token;
                alice.upload(spec(&format!("new {}", seen.len())), b"new").await.unwrap();
                if deleted.is_none() {
                    // The page token points to this row.
                    deleted = seen.last().cloned();
                    alice.delete(deleted.as_ref().unwrap()).await.unwrap();
                }
            }
            let mut unique = seen.clone();
            unique.sort();
            unique.dedup();
            assert_eq!(unique.len(), seen.len(), "{order_by}");
            assert!(before.iter().all(|id| seen.contains(id)), "{order_by}");
            for id in list_all(&alice, request(order_by, 1000)).await.into_iter().map(|file| file.id) {
                if !before.contains(&id) {
                    alice.purge(&id).await.unwrap();
                }
            }
            alice.undelete(&deleted.unwrap()).await.unwrap();
        }
    });
}

#[test]
fn page_size_defaults_to_20_and_is_capped() {
    service_test_with(
        |config| config.lists.page_size_max = 25,
        |s| async move {
            let alice = s.alice();
            for n in 0..26 {
                alice.upload(spec(&format!("{n}")), b"").await.unwrap();
            }
            for (page_size, expected) in [(0, 20), (1, 1), (25, 25), (26, 25), (i32::MAX, 25)] {
                assert_eq!(
                    alice.list(request("", page_size)).await.unwrap().files.len(),
                    expected,
                    "{page_size}"
                );
            }
            let error = alice.list(request("", -1)).await.unwrap_err();
            assert_eq!(violated_fields(&error), ["page_size"]);
        },
    );
}

/// Uploads files that differ in every field that filters use.
async fn upload_different_files(s: &Service) {
    let alice = s.alice();
    let tagged = |name: &str, tags: &[&str]| UploadSpec {
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        ..spec(name)
    };
    let entity =
        |id: &str, field: &str| EntityRef { r#type: "course".into(), id: id.into(), field: field.into() };
    alice
        .upload(UploadSpec { category: "report".into(), ..tagged("a-report.txt", &["red", "blue"]) }, b"1")
        .await
        .unwrap();
    s.clock.advance(Duration::seconds(10));
    let attached = UploadSpec {
        attachments: vec![entity("C1", "cover"), entity("C2", "")],
        ..tagged("b.txt", &["red"])
    };
    alice.upload(attached, b"22").await.unwrap();
    s.clock.advance(Duration::seconds(10));
    s.bob().upload(tagged("c.png", &["blue"]), b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01").await.unwrap();
    s.clock.advance(Duration::seconds(10));
    let trashed = alice.upload(spec("d.gif"), b"GIF89a\x01\0\x01\0").await.unwrap();
    alice.delete(&file_id(&trashed)).await.unwrap();
}

#[test]
fn filters_select_matching_files() {
    service_test(|s| async move {
        let start = s.clock.now();
        upload_different_files(&s).await;
        let maria = s.maria();
        let at = |seconds: i64| Some(Timestamp { seconds: start.timestamp() + seconds, nanos: 0 });
        let none = FileFilter::default;
        let strings = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let entity = |id: &str, field: &str| {
            Some(EntityRef { r#type: "course".into(), id: id.into(), field: field.into() })
        };
        let cases = [
            (none(), "abc"),
            (FileFilter { category: "report".into(), ..none() }, "a"),
            (FileFilter { category: "avatar".into(), ..none() }, ""),
            (FileFilter { states: vec![FileState::Available.into()], ..none() }, "abc"),
            (
                FileFilter { states: vec![FileState::Quarantined.into(), FileState::Error.into()], ..none() },
                "",
            ),
            (FileFilter { entity: entity("C1", ""), ..none() }, "b"),
            (FileFilter { entity: entity("C1", "cover"), ..none() }, "b"),
            (FileFilter { entity: entity("C1", "other"), ..none() }, ""),
            (FileFilter { entity: entity("C2", ""), ..none() }, "b"),
            (FileFilter { tags_all: strings(&["red"]), ..none() }, "ab"),
            (FileFilter { tags_all: strings(&["red", "blue"]), ..none() }, "a"),
            (FileFilter { tags_any: strings(&["red", "blue"]), ..none() }, "abc"),
            (FileFilter { tags_any: strings(&["green"]), ..none() }, ""),
            (FileFilter { tags_all: strings(&["blue"]), tags_any: strings(&["red"]), ..none() }, "a"),
            (FileFilter { mime_types: strings(&["image/png"]), ..none() }, "c"),
            (FileFilter { mime_types: strings(&["image/*"]), ..none() }, "c"),
            (FileFilter { mime_types: strings(&["image/*", "text/plain"]), ..none() }, "abc"),
            (FileFilter { mime_types: strings(&["image"]), ..none() }, ""),
            (FileFilter { owner_id: "alice".into(), ..none() }, "ab"),
            (FileFilter { owner_id: "bob".into(), ..none() }, "c"),
            (FileFilter { owner_id: "maria".into(), ..none() }, ""),
            (FileFilter { create_time_start: at(10), ..none() }, "bc"),
            (FileFilter { create_time_end: at(10), ..none() }, "a"),
            (FileFilter { create_time_start: at(10), create_time_end: at(20), ..none() }, "b"),
            (FileFilter { create_time_start: at(11), create_time_end: at(20), ..none() }, ""),
            (FileFilter { name_prefix: "a-".into(), ..none() }, "a"),
            (FileFilter { name_prefix: "A".into(), ..none() }, ""),
            (FileFilter { name_prefix: "%".into(), ..none() }, ""),
            (FileFilter { size_bytes_min: Some(2), ..none() }, "bc"),
            (FileFilter { size_bytes_max: Some(2), ..none() }, "ab"),
            (FileFilter { size_bytes_min: Some(2), size_bytes_max: Some(2), ..none() }, "b"),
            (FileFilter { sha256: sha256(b"22"), ..none() }, "b"),
            (FileFilter { scan_statuses: vec![ScanStatus::NotScanned.into()], ..none() }, "abc"),
            (FileFilter { scan_statuses: vec![ScanStatus::Clean.into()], ..none() }, ""),
            (FileFilter { owner_id: "alice".into(), tags_any: strings(&["blue"]), ..none() }, "a"),
        ];
        for (filter, expected) in cases {
            for page_size in [0, 1] {
                let list_request = ListFilesRequest { page_size, ..filtered(filter.clone()) };
                let names: String =
                    maria.list_names(list_request).await.iter().map(|name| &name[..1]).collect();
                assert_eq!(names, expected, "{filter:?} by {page_size}");
            }
            let counted = ListFilesRequest { include_total: true, ..filtered(filter.clone()) };
            let page = maria.list(counted).await.unwrap();
            assert_eq!(
                (page.total_size, page.total_size_is_lower_bound),
                (Some(expected.len() as i64), false),
                "{filter:?}"
            );
        }
    });
}

#[test]
fn trash_is_listed_only_on_request() {
    service_test(|s| async move {
        upload_different_files(&s).await;
        let maria = s.maria();
        let with_trash = |states: Vec<i32>| ListFilesRequest {
            show_deleted: true,
            ..filtered(FileFilter { states, ..Default::default() })
        };
        let names = |names: Vec<String>| names.iter().map(|name| name[..1].to_owned()).collect::<String>();
        for order_by in ["name", "name desc"] {
            let all = ListFilesRequest { order_by: order_by.into(), page_size: 1, ..with_trash(vec![]) };
            let expected = if order_by == "name" { "abcd" } else { "dcba" };
            assert_eq!(names(maria.list_names(all).await), expected);
        }
        assert_eq!(names(maria.list_names(with_trash(vec![FileState::Deleted.into()])).await), "d");
        assert_eq!(names(maria.list_names(with_trash(vec![FileState::Available.into()])).await), "abc");
        let implied = filtered(FileFilter { states: vec![FileState::Deleted.into()], ..Default::default() });
        assert_eq!(names(maria.list_names(implied).await), "d", "a filter on DELETED implies show_deleted");
    });
}

#[test]
fn total_is_exact_up_to_limit_then_lower_bound() {
    service_test_with(
        |config| config.lists.count_max = 5,
        |s| async move {
            let alice = s.alice();
            for n in 0..7_i64 {
                let list_request = ListFilesRequest { include_total: true, ..request("", 2) };
                let page = alice.list(list_request).await.unwrap();
                assert_eq!((page.total_size, page.total_size_is_lower_bound), (Some(n.min(5)), n > 5), "{n}");
                alice.upload(spec(&format!("{n}")), b"x").await.unwrap();
            }
            let without_total = alice.list(request("", 2)).await.unwrap();
            assert_eq!((without_total.total_size, without_total.total_size_is_lower_bound), (None, false));
        },
    );
}

#[test]
fn rare_filter_returns_short_pages_but_all_files() {
    service_test_with(
        |config| config.lists.scan_rows_per_row_max = 2,
        |s| async move {
            let alice = s.alice();
            for n in 0..30 {
                let tags = if n % 10 == 5 { vec!["rare".to_owned()] } else { Vec::new() };
                alice.upload(UploadSpec { tags, ..spec(&format!("{n:02}")) }, b"x").await.unwrap();
            }
            let list_request = ListFilesRequest {
                page_size: 3,
                ..filtered(FileFilter { tags_all: vec!["rare".to_owned()], ..Default::default() })
            };
            let first = alice.list(list_request.clone()).await.unwrap();
            assert!(first.files.len() < 3 && !first.next_page_token.is_empty());
            assert_eq!(alice.list_names(list_request).await, ["05", "15", "25"]);
        },
    );
}

#[test]
fn page_token_is_bound_to_filter_order_and_tenant() {
    service_test(|s| async move {
        let (alice, mallory) = (s.alice(), s.mallory());
        for caller in [&alice, &mallory] {
            for n in 0..4 {
                caller
                    .upload(UploadSpec { category: "report".into(), ..spec(&format!("{n}")) }, b"x")
                    .await
                    .unwrap();
            }
        }
        let token = alice.list(request("name", 2)).await.unwrap().next_page_token;
        let with = |token: &str, list_request: ListFilesRequest| ListFilesRequest {
            page_token: token.into(),
            ..list_request
        };
        assert_eq!(
            alice.list(with(&token, request("name", 1))).await.unwrap().files.len(),
            1,
            "the page size may change"
        );
        let other_filter = filtered(FileFilter { category: "report".into(), ..Default::default() });
        let with_trash = ListFilesRequest { show_deleted: true, ..request("name", 2) };
        let mut damaged = token.clone();
        damaged.replace_range(20..21, if &token[20..21] == "A" { "B" } else { "A" });
        let cases = [
            (&alice, with(&token, request("name desc", 2))),
            (&alice, with(&token, request("create_time", 2))),
            (&alice, with(&token, other_filter)),
            (&alice, with(&token, with_trash)),
            (&mallory, with(&token, request("name", 2))),
            (&alice, with(&damaged, request("name", 2))),
            (&alice, with("nonsense", request("name", 2))),
            (&alice, with(&"A".repeat(4000), request("name", 2))),
        ];
        for (caller, list_request) in cases {
            let error = caller.list(list_request.clone()).await.unwrap_err();
            let got = (error.code(), reason(&error));
            assert_eq!(got, (Code::InvalidArgument, "PAGE_TOKEN_INVALID".to_owned()), "{list_request:?}");
        }
        assert!(!token.contains("alice") && !token.contains('='), "{token}");
    });
}

#[test]
fn basic_view_omits_long_fields() {
    service_test(|s| async move {
        let alice = s.alice();
        let metadata =
            Struct { fields: [("k".to_owned(), Value { kind: Some(Kind::BoolValue(true)) })].into() };
        let detailed = UploadSpec {
            description: "long".into(),
            metadata: Some(metadata),
            tags: vec!["t".into()],
            attachments: vec![EntityRef { r#type: "page".into(), id: "1".into(), field: "".into() }],
            ..spec("a")
        };
        let id = file_id(&alice.upload(detailed, b"x").await.unwrap());
        let full = alice.get(&id).await.unwrap();
        let view = |view: FileView| ListFilesRequest { view: view.into(), ..request("", 0) };
        for value in [FileView::Unspecified, FileView::Basic] {
            let listed = alice.list(view(value)).await.unwrap().files.remove(0);
            let basic = File {
                description: String::new(),
                metadata: None,
                tags: vec![],
                attachments: vec![],
                download_count: None,
                ..full.clone()
            };
            assert_eq!(listed, basic);
        }
        assert_eq!(alice.list(view(FileView::Full)).await.unwrap().files, [full]);
    });
}

#[test]
fn invalid_list_request_reports_all_fields() {
    service_test(|s| async move {
        let filter = FileFilter {
            sha256: vec![1, 2, 3].into(),
            tags_all: vec![String::new()],
            entity: Some(EntityRef { r#type: "Bad Type".into(), id: "1".into(), field: "".into() }),
            ..Default::default()
        };
        let list_request = ListFilesRequest {
            order_by: "name; DROP TABLE files".into(),
            filter: Some(filter),
            page_size: -1,
            view: 77,
            ..Default::default()
        };
        let error = s.alice().list(list_request).await.unwrap_err();
        let mut fields = violated_fields(&error);
        fields.sort();
        let expected =
            ["filter.entity.type", "filter.sha256", "filter.tags_all[0]", "order_by", "page_size", "view"];
        assert_eq!(fields, expected);
    });
}
