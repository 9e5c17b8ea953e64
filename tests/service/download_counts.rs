//! Download counts: beside the read, never in its way.

use chrono::Duration;
use strongroom::{
    app::files::count_downloads::flush_download_counts,
    domain::clock::Clock,
    proto::v1::{BatchGetFilesRequest, DownloadFileRequest, FileView, ListFilesRequest},
};

use crate::harness::{Caller, Service, file_id, service_test, spec};

async fn stored(caller: &Caller, name: &str) -> String {
    file_id(&caller.upload(spec(name), b"0123456789").await.unwrap())
}

async fn range(caller: &Caller, id: &str, read_offset: i64) {
    let request =
        DownloadFileRequest { file_id: id.to_owned(), read_offset, ..DownloadFileRequest::default() };
    caller.download(request).await.unwrap();
}

/// The count and the seconds of the last access, as everyone is shown them.
async fn shown(caller: &Caller, id: &str) -> (Option<i64>, Option<i64>) {
    let file = caller.get(id).await.unwrap();
    (file.download_count, file.last_access_time.map(|time| time.seconds))
}

fn now(s: &Service) -> Option<i64> {
    Some(s.clock.now().timestamp())
}

#[test]
fn downloads_are_counted_a_little_later_and_change_nothing_else_of_the_file() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = stored(&alice, "a").await;
        let before = alice.get(&id).await.unwrap();
        assert_eq!((before.download_count, before.last_access_time), (Some(0), None));
        s.clock.advance(Duration::seconds(10));
        alice.read(&id).await.unwrap();
        s.bob().read(&id).await.unwrap();
        assert_eq!(shown(&alice, &id).await, (Some(0), None), "no download waited for its count");

        assert_eq!(flush_download_counts(&s.app).await.unwrap(), 1);
        assert_eq!(shown(&alice, &id).await, (Some(2), now(&s)));
        let after = alice.get(&id).await.unwrap();
        assert_eq!((&after.etag, after.update_time), (&before.etag, before.update_time));
        assert_eq!(flush_download_counts(&s.app).await.unwrap(), 0, "nothing is written twice");

        s.clock.advance(Duration::seconds(10));
        alice.read(&id).await.unwrap();
        flush_download_counts(&s.app).await.unwrap();
        assert_eq!(shown(&alice, &id).await, (Some(3), now(&s)));
    });
}

#[test]
fn a_download_that_goes_on_is_an_access_and_no_second_download() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = stored(&alice, "a").await;
        range(&alice, &id, 0).await;
        s.clock.advance(Duration::seconds(5));
        range(&alice, &id, 4).await;
        range(&alice, &id, -2).await;
        flush_download_counts(&s.app).await.unwrap();
        assert_eq!(shown(&alice, &id).await, (Some(1), now(&s)));
    });
}

#[test]
fn a_refused_download_is_not_counted() {
    service_test(|s| async move {
        let id = stored(&s.alice(), "a").await;
        s.mallory().read(&id).await.unwrap_err();
        s.alice().archive(&id).await.unwrap();
        s.alice().read(&id).await.unwrap_err();
        assert_eq!(flush_download_counts(&s.app).await.unwrap(), 0);
    });
}

#[test]
fn full_views_show_the_count_and_basic_ones_do_not() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = stored(&alice, "a").await;
        alice.read(&id).await.unwrap();
        flush_download_counts(&s.app).await.unwrap();
        for (view, count) in [(FileView::Full, Some(1)), (FileView::Basic, None)] {
            let listed =
                alice.list(ListFilesRequest { view: view.into(), ..Default::default() }).await.unwrap();
            assert_eq!(listed.files[0].download_count, count);
            let asked = BatchGetFilesRequest { file_ids: vec![id.clone()], view: view.into() };
            let batch = alice.files.clone().batch_get_files(asked).await.unwrap().into_inner();
            assert_eq!(batch.files[0].download_count, count);
        }
        let renamed = alice.rename(&id, "b").await.unwrap();
        assert_eq!(renamed.download_count, Some(1), "what a change answers is not behind what a get shows");
    });
}

#[test]
fn two_replicas_add_up_and_each_tenant_sees_its_own() {
    service_test(|s| async move {
        let other = s.replica(|_| {}).await;
        let (id, foreign) = (stored(&s.alice(), "a").await, stored(&s.mallory(), "b").await);
        for service in [&s, &other] {
            service.alice().read(&id).await.unwrap();
            service.mallory().read(&foreign).await.unwrap();
            service.mallory().read(&foreign).await.unwrap();
        }
        assert_eq!(
            (flush_download_counts(&s.app).await.unwrap(), flush_download_counts(&other.app).await.unwrap()),
            (2, 2)
        );
        assert_eq!(shown(&s.alice(), &id).await.0, Some(2));
        assert_eq!(shown(&s.mallory(), &foreign).await.0, Some(4));
        other.stopped().await;
    });
}

#[test]
fn what_was_counted_is_written_when_the_process_drains() {
    service_test(|s| async move {
        let other = s.replica(|_| {}).await;
        let id = stored(&s.alice(), "a").await;
        other.alice().read(&id).await.unwrap();
        other.stopped().await;
        assert_eq!(shown(&s.alice(), &id).await.0, Some(1));
    });
}

#[test]
fn a_file_that_was_purged_meanwhile_does_not_keep_the_others_from_being_counted() {
    service_test(|s| async move {
        let alice = s.alice();
        let (gone, counted, kept) =
            (stored(&alice, "a").await, stored(&alice, "b").await, stored(&alice, "c").await);
        for id in [&gone, &counted, &kept] {
            alice.read(id).await.unwrap();
        }
        alice.purge(&gone).await.unwrap();
        flush_download_counts(&s.app).await.unwrap();
        alice.purge(&counted).await.unwrap();
        assert_eq!(shown(&alice, &kept).await.0, Some(1));
        assert_eq!(
            s.owner.number("SELECT count(*) FROM download_counts").await,
            1,
            "a purge takes the count along"
        );
    });
}

#[test]
fn counts_that_could_not_be_written_wait_for_the_next_time() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = stored(&alice, "a").await;
        alice.read(&id).await.unwrap();
        s.owner.run("REVOKE INSERT ON download_counts FROM strongroom_system").await;
        flush_download_counts(&s.app).await.unwrap_err();
        s.owner.run("GRANT INSERT ON download_counts TO strongroom_system").await;
        alice.read(&id).await.unwrap();
        flush_download_counts(&s.app).await.unwrap();
        assert_eq!(shown(&alice, &id).await.0, Some(2));
    });
}
