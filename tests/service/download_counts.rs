//! Download counts, which are flushed in the background and delay no download.

use chrono::Duration;
use strongroom::{
    app::files::count_downloads::flush_download_counts,
    domain::clock::Clock,
    proto::v1::{BatchGetFilesRequest, DownloadFileRequest, FileView, ListFilesRequest},
};

use crate::harness::{Caller, Service, file_id, service_test, spec};

async fn upload_file(caller: &Caller, name: &str) -> String {
    file_id(&caller.upload(spec(name), b"0123456789").await.unwrap())
}

async fn download_from(caller: &Caller, id: &str, read_offset: i64) {
    let request =
        DownloadFileRequest { file_id: id.to_owned(), read_offset, ..DownloadFileRequest::default() };
    caller.download(request).await.unwrap();
}

/// Returns the download count and the last access time in seconds.
async fn count_and_access_time(caller: &Caller, id: &str) -> (Option<i64>, Option<i64>) {
    let file = caller.get(id).await.unwrap();
    (file.download_count, file.last_access_time.map(|time| time.seconds))
}

fn now(s: &Service) -> Option<i64> {
    Some(s.clock.now().timestamp())
}

#[test]
fn downloads_are_counted_later_and_change_no_etag() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&alice, "a").await;
        let before = alice.get(&id).await.unwrap();
        assert_eq!((before.download_count, before.last_access_time), (Some(0), None));
        s.clock.advance(Duration::seconds(10));
        alice.read(&id).await.unwrap();
        s.bob().read(&id).await.unwrap();
        assert_eq!(
            count_and_access_time(&alice, &id).await,
            (Some(0), None),
            "a download does not wait for its count"
        );

        assert_eq!(flush_download_counts(&s.app).await.unwrap().done, 1);
        assert_eq!(count_and_access_time(&alice, &id).await, (Some(2), now(&s)));
        let after = alice.get(&id).await.unwrap();
        assert_eq!((&after.etag, after.update_time), (&before.etag, before.update_time));
        assert_eq!(flush_download_counts(&s.app).await.unwrap().done, 0, "no count is written twice");

        s.clock.advance(Duration::seconds(10));
        alice.read(&id).await.unwrap();
        flush_download_counts(&s.app).await.unwrap();
        assert_eq!(count_and_access_time(&alice, &id).await, (Some(3), now(&s)));
    });
}

#[test]
fn resumed_download_is_an_access_but_not_counted() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&alice, "a").await;
        download_from(&alice, &id, 0).await;
        s.clock.advance(Duration::seconds(5));
        download_from(&alice, &id, 4).await;
        download_from(&alice, &id, -2).await;
        flush_download_counts(&s.app).await.unwrap();
        assert_eq!(count_and_access_time(&alice, &id).await, (Some(1), now(&s)));
    });
}

#[test]
fn rejected_download_is_not_counted() {
    service_test(|s| async move {
        let id = upload_file(&s.alice(), "a").await;
        s.mallory().read(&id).await.unwrap_err();
        s.alice().archive(&id).await.unwrap();
        s.alice().read(&id).await.unwrap_err();
        assert_eq!(flush_download_counts(&s.app).await.unwrap().done, 0);
    });
}

#[test]
fn full_view_has_count_and_basic_view_has_none() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&alice, "a").await;
        alice.read(&id).await.unwrap();
        flush_download_counts(&s.app).await.unwrap();
        for (view, count) in [(FileView::Full, Some(1)), (FileView::Basic, None)] {
            let listed =
                alice.list(ListFilesRequest { view: view.into(), ..Default::default() }).await.unwrap();
            assert_eq!(listed.files[0].download_count, count);
            let request = BatchGetFilesRequest { file_ids: vec![id.clone()], view: view.into() };
            let batch = alice.files.clone().batch_get_files(request).await.unwrap().into_inner();
            assert_eq!(batch.files[0].download_count, count);
        }
        let renamed = alice.rename(&id, "b").await.unwrap();
        assert_eq!(renamed.download_count, Some(1), "the response to a change has the current count");
    });
}

#[test]
fn counts_of_two_replicas_add_up_per_tenant() {
    service_test(|s| async move {
        let other = s.start_replica(|_| {}).await;
        let (id, foreign) = (upload_file(&s.alice(), "a").await, upload_file(&s.mallory(), "b").await);
        for service in [&s, &other] {
            service.alice().read(&id).await.unwrap();
            service.mallory().read(&foreign).await.unwrap();
            service.mallory().read(&foreign).await.unwrap();
        }
        assert_eq!(
            (
                flush_download_counts(&s.app).await.unwrap().done,
                flush_download_counts(&other.app).await.unwrap().done
            ),
            (2, 2)
        );
        assert_eq!(count_and_access_time(&s.alice(), &id).await.0, Some(2));
        assert_eq!(count_and_access_time(&s.mallory(), &foreign).await.0, Some(4));
        other.stop().await;
    });
}

#[test]
fn counts_are_flushed_when_process_drains() {
    service_test(|s| async move {
        let other = s.start_replica(|_| {}).await;
        let id = upload_file(&s.alice(), "a").await;
        other.alice().read(&id).await.unwrap();
        other.stop().await;
        assert_eq!(count_and_access_time(&s.alice(), &id).await.0, Some(1));
    });
}

#[test]
fn purged_file_does_not_prevent_other_counts() {
    service_test(|s| async move {
        let alice = s.alice();
        let (purged_early, purged_late, remaining) =
            (upload_file(&alice, "a").await, upload_file(&alice, "b").await, upload_file(&alice, "c").await);
        for id in [&purged_early, &purged_late, &remaining] {
            alice.read(id).await.unwrap();
        }
        alice.purge(&purged_early).await.unwrap();
        flush_download_counts(&s.app).await.unwrap();
        alice.purge(&purged_late).await.unwrap();
        assert_eq!(count_and_access_time(&alice, &remaining).await.0, Some(1));
        assert_eq!(
            s.superuser.query_number("SELECT count(*) FROM download_counts").await,
            1,
            "a purge deletes the count"
        );
    });
}

#[test]
fn failed_flush_is_retried_with_next_flush() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&alice, "a").await;
        alice.read(&id).await.unwrap();
        s.superuser.execute("REVOKE INSERT ON download_counts FROM strongroom_system").await;
        flush_download_counts(&s.app).await.unwrap_err();
        s.superuser.execute("GRANT INSERT ON download_counts TO strongroom_system").await;
        alice.read(&id).await.unwrap();
        flush_download_counts(&s.app).await.unwrap();
        assert_eq!(count_and_access_time(&alice, &id).await.0, Some(2));
    });
}
