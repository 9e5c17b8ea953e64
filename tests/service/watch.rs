//! `WatchFiles`: order, completeness, visibility, cursors and limits.

use std::collections::BTreeSet;

use strongroom::{
    db::migrate::replace_state_names,
    proto::v1::{
        EntityRef, File, FileEventKind as Kind, UploadSpec, Visibility, WatchFilesRequest, WatchFilter,
    },
};
use tonic::Code;
use tonic_types::StatusExt;

use crate::harness::{Caller, Service, Watcher, file_id, reason, service_test, service_test_with, spec};

const REQUEST: &str = "0193a7a0-0000-7000-8000-0000000000aa";

fn private_spec(name: &str) -> UploadSpec {
    UploadSpec { visibility: Visibility::Owner.into(), ..spec(name) }
}

pub(crate) async fn upload_file(caller: &Caller, spec: UploadSpec) -> String {
    file_id(&caller.upload(spec, b"x").await.unwrap())
}

async fn watch_filtered(caller: &Caller, filter: WatchFilter) -> Watcher {
    let request = WatchFilesRequest { cursor: String::new(), filter: Some(filter) };
    caller.watch_files_with(request).await.unwrap()
}

#[test]
fn changes_are_sent_in_order() {
    service_test(|s| async move {
        let (alice, bob) = (s.alice(), s.bob());
        let mut watcher = bob.watch_files().await;
        let file = upload_file(&alice, spec("a")).await;
        alice.rename(&file, "b").await.unwrap();
        alice.archive(&file).await.unwrap();
        alice.unarchive(&file).await.unwrap();
        alice.delete(&file).await.unwrap();
        alice.undelete(&file).await.unwrap();
        alice.purge(&file).await.unwrap();
        let mut positions = Vec::new();
        for kind in [
            Kind::Created,
            Kind::Updated,
            Kind::Archived,
            Kind::Unarchived,
            Kind::Deleted,
            Kind::Undeleted,
            Kind::Purged,
        ] {
            let event = watcher.next_event().await;
            assert_eq!((event.kind(), event.file_id.as_str()), (kind, file.as_str()));
            assert_eq!((event.actor_id.as_str(), event.version), ("alice", 1));
            positions.push(event.position);
        }
        assert!(positions.is_sorted_by(|a, b| a < b), "{positions:?}");
    });
}

#[test]
fn event_contains_current_file() {
    service_test(|s| async move {
        let (alice, mut watcher) = (s.alice(), s.bob().watch_files().await);
        let first_cursor = watcher.cursor.clone();
        let file = upload_file(&alice, spec("a")).await;
        assert_eq!(watcher.next_event().await.file.unwrap().name, "a");
        alice.rename(&file, "b").await.unwrap();
        let mut again = s.bob().watch_files_after(&first_cursor).await.unwrap();
        let created = again.next_event().await;
        assert_eq!((created.kind(), created.file.unwrap().name), (Kind::Created, "b".to_owned()));
    });
}

/// Sixteen concurrent writers, and a watcher that reconnects after every seven events.
#[test]
fn reconnecting_watcher_gets_each_event_once() {
    const WRITERS: usize = 16;
    const FILES: usize = 12;
    service_test(|s| async move {
        let mut watcher = s.bob().watch_files().await;
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let alice = s.alice();
                tokio::spawn(async move {
                    let mut written = Vec::new();
                    for number in 0..FILES {
                        let response = alice.upload(spec(&format!("{writer}-{number}")), b"x").await.unwrap();
                        written.push((response.event_position.clone(), file_id(&response)));
                    }
                    written
                })
            })
            .collect();
        let mut received = Vec::new();
        while received.len() < WRITERS * FILES {
            for _ in 0..7.min(WRITERS * FILES - received.len()) {
                let event = watcher.next_event().await;
                received.push((event.position, event.file_id));
            }
            watcher = s.bob().watch_files_after(&watcher.cursor).await.unwrap();
        }
        assert!(received.is_sorted_by(|a, b| a.0 < b.0), "events are in order and unique");
        let mut written = BTreeSet::new();
        for writer in writers {
            written.extend(writer.await.unwrap());
        }
        assert_eq!(received.into_iter().collect::<BTreeSet<_>>(), written);
    });
}

#[test]
fn late_commit_is_not_skipped() {
    service_test_with(
        |config| config.watches.heartbeat_seconds = 1,
        |s| async move {
            let alice = s.alice();
            let start = s.bob().watch_files().await.cursor;
            let late = upload_file(&alice, spec("late")).await;
            // Otherwise the watch, which starts after the events that are readable, could deliver its
            // creation.
            s.wait_until_events_are_readable().await;
            let mut watcher = s.bob().watch_files().await;
            // This transaction has its number and its event, and stays open.
            let open_transaction = s.database.connect_as_app().await;
            let tenant = alice.tenant_id().await;
            let begin = format!(
                "BEGIN; SET LOCAL app.tenant_id = '{tenant}'; SET LOCAL app.audience_min = '1';
                 INSERT INTO events (tenant_id, create_time, kind, file_id, version, actor_id, owner_id, audience, readers)
                 VALUES ('{tenant}', app.now(), {{event_kind.file_updated}}, '{late}', 1, 'alice', 'alice',
                         {{visibility.organization}}, '{{}}')"
            );
            open_transaction.batch_execute(&replace_state_names(&begin).unwrap()).await.unwrap();
            let number: String =
                open_transaction.query_one("SELECT pg_current_xact_id()::text", &[]).await.unwrap().get(0);
            let epoch: i32 =
                open_transaction.query_one("SELECT app.position_epoch()", &[]).await.unwrap().get(0);
            let number = format!("{epoch:04x}{:012x}", number.parse::<u64>().unwrap());
            let early = alice.upload(spec("early"), b"x").await.unwrap();
            assert!(early.event_position > number, "the later transaction committed first");
            // A watch with a backlog reads events at once. It must not read past the bound either.
            let mut behind = s.bob().watch_files_after(&start).await.unwrap();
            assert_eq!(behind.next_kind_and_file().await, (Kind::Created, late.clone()));
            // Heartbeats arrive, but no event. Their positions must not pass the open transaction.
            for _ in 0..2 {
                let position = watcher.next_heartbeat().await.position;
                assert!(position <= format!("{number}{}", "0".repeat(16)), "{position} {number}");
            }
            open_transaction.batch_execute("COMMIT").await.unwrap();
            for mut watcher in [watcher, behind] {
                assert_eq!(watcher.next_kind_and_file().await, (Kind::Updated, late.clone()));
                assert_eq!(watcher.next_kind_and_file().await, (Kind::Created, file_id(&early)));
            }
        },
    );
}

#[test]
fn heartbeat_moves_cursor_past_filtered_events() {
    service_test_with(
        |config| config.watches.heartbeat_seconds = 1,
        |s| async move {
            let alice = s.alice();
            let filter = WatchFilter { file_id: REQUEST.to_owned(), ..WatchFilter::default() };
            let mut watcher = watch_filtered(&alice, filter).await;
            let written = alice.upload(spec("a"), b"x").await.unwrap().event_position;
            while watcher.next_heartbeat().await.position < written {}
            let mut unfiltered = alice.watch_files_after(&watcher.cursor).await.unwrap();
            let next = upload_file(&alice, spec("b")).await;
            assert_eq!(
                unfiltered.next_kind_and_file().await,
                (Kind::Created, next),
                "events before the cursor are not sent again"
            );
        },
    );
}

#[test]
fn filter_passes_matching_events_and_purges() {
    service_test(|s| async move {
        let (alice, bob) = (s.alice(), s.bob());
        let kinds = WatchFilter { kinds: vec![Kind::Purged.into()], ..WatchFilter::default() };
        let owner = WatchFilter { owner_id: "bob".to_owned(), ..WatchFilter::default() };
        let category = WatchFilter { category: "report".to_owned(), ..WatchFilter::default() };
        let (mut purged, mut bobs, mut reports) = (
            watch_filtered(&alice, kinds).await,
            watch_filtered(&alice, owner).await,
            watch_filtered(&alice, category).await,
        );
        let of_alice = upload_file(&alice, spec("a")).await;
        let of_bob = upload_file(&bob, UploadSpec { category: "report".to_owned(), ..spec("b") }).await;
        // Each watcher has passed the first event before the file is purged.
        assert_eq!(bobs.next_kind_and_file().await, (Kind::Created, of_bob.clone()));
        assert_eq!(reports.next_kind_and_file().await, (Kind::Created, of_bob));
        alice.purge(&of_alice).await.unwrap();
        for watcher in [&mut purged, &mut bobs, &mut reports] {
            assert_eq!(watcher.next_kind_and_file().await, (Kind::Purged, of_alice.clone()));
        }
        let wrong = WatchFilter { kinds: vec![0], file_id: "7".to_owned(), ..WatchFilter::default() };
        let request = WatchFilesRequest { cursor: String::new(), filter: Some(wrong) };
        let Err(error) = alice.watch_files_with(request).await else { panic!("accepted") };
        assert_eq!(crate::harness::violated_fields(&error), ["filter.kinds[0]", "filter.file_id"]);
    });
}

#[test]
fn watcher_gets_no_events_of_invisible_files() {
    service_test(|s| async move {
        let (alice, mut bob, mut ada) = (s.alice(), s.bob().watch_files().await, s.ada().watch_files().await);
        let mut mallory = s.mallory().watch_files().await;
        let secret = upload_file(&alice, private_spec("secret")).await;
        alice.rename(&secret, "still secret").await.unwrap();
        alice.purge(&secret).await.unwrap();
        let open = upload_file(&alice, spec("open")).await;
        assert_eq!(bob.next_kind_and_file().await, (Kind::Created, open.clone()), "the first event for bob");
        for (kind, file) in [
            (Kind::Created, &secret),
            (Kind::Updated, &secret),
            (Kind::Purged, &secret),
            (Kind::Created, &open),
        ] {
            assert_eq!(ada.next_kind_and_file().await, (kind, file.clone()), "an admin gets all events");
        }
        let theirs = upload_file(&s.mallory(), spec("theirs")).await;
        assert_eq!(
            mallory.next_kind_and_file().await,
            (Kind::Created, theirs),
            "events of other tenants are not sent"
        );
    });
}

#[test]
fn watcher_that_loses_access_gets_one_last_event() {
    service_test(|s| async move {
        let (alice, mut bob, mut ada) = (s.alice(), s.bob().watch_files().await, s.ada().watch_files().await);
        let first_cursor = bob.cursor.clone();
        let file = upload_file(&alice, spec("open")).await;
        assert_eq!(bob.next_event().await.file.unwrap().name, "open");
        let hidden = File {
            id: file.clone(),
            name: "hidden".to_owned(),
            visibility: Visibility::Owner.into(),
            ..File::default()
        };
        alice.update(hidden, &["name", "visibility"]).await.unwrap();
        let lost = bob.next_event().await;
        assert_eq!((lost.kind(), &lost.file_id, lost.file), (Kind::Updated, &file, None));
        alice.rename(&file, "hidden again").await.unwrap();
        alice.purge(&file).await.unwrap();
        let open = upload_file(&alice, spec("another")).await;
        assert_eq!(
            bob.next_kind_and_file().await,
            (Kind::Created, open.clone()),
            "later events of the hidden file are not sent"
        );
        // A watch from an old cursor returns no more than the live one did.
        let mut late = s.bob().watch_files_after(&first_cursor).await.unwrap();
        for kind in [Kind::Created, Kind::Updated] {
            let event = late.next_event().await;
            assert_eq!((event.kind(), &event.file_id, event.file), (kind, &file, None));
        }
        assert_eq!(late.next_kind_and_file().await, (Kind::Created, open));
        for kind in [Kind::Created, Kind::Updated, Kind::Updated, Kind::Purged, Kind::Created] {
            assert_eq!(ada.next_event().await.kind(), kind);
        }
    });
}

#[test]
fn purge_is_sent_to_members_of_file_group() {
    service_test(|s| async move {
        let (teacher, mut friend, mut pupil) =
            (s.teacher(), s.friend().watch_files().await, s.pupil().watch_files().await);
        let class = EntityRef { r#type: "class".to_owned(), id: "7a".to_owned(), field: String::new() };
        let lesson = UploadSpec {
            category: "educational_content".to_owned(),
            attachments: vec![class],
            ..spec("lesson")
        };
        let file = upload_file(&teacher, lesson).await;
        teacher.purge(&file).await.unwrap();
        for kind in [Kind::Created, Kind::Purged] {
            assert_eq!(friend.next_kind_and_file().await, (kind, file.clone()));
        }
        let open =
            upload_file(&teacher, UploadSpec { category: "media_resource".to_owned(), ..spec("open") }).await;
        assert_eq!(pupil.next_kind_and_file().await, (Kind::Created, open), "others get no event");
    });
}

#[test]
fn rejects_damaged_or_foreign_cursor() {
    service_test(|s| async move {
        let cursor = s.alice().watch_files().await.cursor;
        for (caller, cursor) in [
            (s.mallory(), cursor.clone()),
            (s.personal_alice(), cursor.clone()),
            (s.alice(), format!("{cursor}A")),
        ] {
            let Err(error) = caller.watch_files_after(&cursor).await else { panic!("accepted") };
            assert_eq!((error.code(), reason(&error)), (Code::InvalidArgument, "CURSOR_INVALID".to_owned()));
        }
        s.bob().watch_files_after(&cursor).await.unwrap();
    });
}

pub(crate) async fn assert_cursor_too_old(s: &Service, cursor: &str) {
    let Err(error) = s.alice().watch_files_after(cursor).await else { panic!("accepted") };
    assert_eq!((error.code(), reason(&error)), (Code::FailedPrecondition, "CURSOR_TOO_OLD".to_owned()));
    assert!(error.message().contains("list again"), "{}", error.message());
}

#[test]
fn cursor_older_than_retention_is_too_old() {
    service_test(|s| async move {
        let cursor = s.alice().watch_files().await.cursor;
        s.clock.advance(chrono::Duration::days(29));
        let fresh = s.alice().watch_files_after(&cursor).await.unwrap().cursor;
        assert_ne!(fresh, cursor);
        strongroom::worker::run_round(&s.app).await;
        s.bob().watch_files_after(&cursor).await.unwrap();
        // The end of the month, and the retention of 30 days.
        s.clock.advance(chrono::Duration::days(33));
        strongroom::worker::run_round(&s.app).await;
        assert_cursor_too_old(&s, &cursor).await;
        s.alice().watch_files().await;
    });
}

#[test]
fn cursor_before_dropped_events_is_too_old() {
    service_test_with(
        |config| config.retention.event_days = 3_000,
        |s| async move {
            let mut open = s.alice().watch_files().await;
            let cursor = open.cursor.clone();
            let drop = "SELECT app.drop_partitions('events', '1 month', date_trunc('month', now(), 'UTC') + interval '40 days')";
            s.superuser.execute(drop).await;
            assert_cursor_too_old(&s, &cursor).await;
            // The open watch cannot know whether an event before the next one was dropped.
            upload_file(&s.alice(), spec("a")).await;
            assert_eq!(reason(&open.wait_for_end().await), "CURSOR_TOO_OLD");
        },
    );
}

#[test]
fn old_events_are_dropped_by_partition() {
    service_test(|s| async move {
        let count = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'events'::regclass";
        let before = s.superuser.query_number(count).await;
        s.clock.advance(chrono::Duration::days(100));
        strongroom::worker::run_round(&s.app).await;
        let oldest = s.superuser.query_number("SELECT extract(epoch FROM app.event_horizon())").await;
        assert!(
            oldest > s.superuser.query_number("SELECT extract(epoch FROM now())").await,
            "{before} partitions before"
        );
    });
}

#[test]
fn watch_ends_when_its_token_expires() {
    service_test(|s| async move {
        let mut watcher = s.alice().watch_files().await;
        s.clock.advance(chrono::Duration::hours(2));
        let ended = watcher.wait_for_end().await;
        assert_eq!((ended.code(), reason(&ended)), (Code::Unauthenticated, "CREDENTIALS_INVALID".to_owned()));
        s.alice().watch_files_after(&watcher.cursor).await.unwrap();
    });
}

#[test]
fn watch_resumes_on_another_replica_after_shutdown() {
    service_test(|s| async move {
        let mut watcher = s.alice().watch_files().await;
        let other = s.start_replica(|_| {}).await;
        s.begin_shutdown();
        let ended = watcher.wait_for_end().await;
        assert_eq!((ended.code(), reason(&ended)), (Code::Unavailable, "SHUTTING_DOWN".to_owned()));
        assert!(ended.get_details_retry_info().is_some());
        let mut watcher = other.alice().watch_files_after(&watcher.cursor).await.unwrap();
        let file = upload_file(&other.alice(), spec("a")).await;
        assert_eq!(watcher.next_kind_and_file().await, (Kind::Created, file));
        drop(watcher);
        other.stop().await;
    });
}

#[test]
fn watcher_gets_events_of_other_replicas() {
    service_test(|s| async move {
        let mut watcher = s.alice().watch_files().await;
        let other = s.start_replica(|_| {}).await;
        let file = upload_file(&other.alice(), spec("a")).await;
        assert_eq!(watcher.next_kind_and_file().await, (Kind::Created, file));
        other.stop().await;
    });
}

#[test]
fn rejects_watch_above_tenant_limit() {
    service_test_with(
        |config| config.watches.streams_per_tenant_max = 1,
        |s| async move {
            let first = s.alice().watch_files().await;
            let Err(error) = s.bob().watch_files_after("").await else { panic!("accepted") };
            let expected = (Code::FailedPrecondition, "WATCHES_EXHAUSTED".to_owned());
            assert_eq!((error.code(), reason(&error)), expected);
            assert!(error.get_details_retry_info().is_none());
            assert_eq!(error.get_details_error_info().unwrap().metadata["watch_count_max"], "1");
            s.mallory().watch_files().await;
            drop(first);
            s.wait_until("the first watch is released", || {
                let bob = s.bob();
                async move { bob.watch_files_after("").await.is_ok() }
            })
            .await;
        },
    );
}

#[test]
fn rejects_watch_above_replica_limit() {
    service_test_with(
        |config| config.watches.streams_max = 1,
        |s| async move {
            let _first = s.alice().watch_files().await;
            let Err(error) = s.mallory().watch_files_after("").await else { panic!("accepted") };
            let expected = (Code::ResourceExhausted, "OVERLOADED".to_owned());
            assert_eq!((error.code(), reason(&error)), expected);
            assert!(error.get_details_retry_info().is_some());
        },
    );
}

#[test]
fn watch_ends_when_tenant_is_suspended() {
    service_test(|s| async move {
        let mut watcher = s.bob().watch_files().await;
        let tenant = s.bob().tenant_id().await;
        s.operator().suspend_tenant(&tenant).await.unwrap();
        let ended = loop {
            match watcher.next_message().await {
                Ok(_) => {}
                Err(ended) => break ended,
            }
        };
        assert_eq!((ended.code(), reason(&ended).as_str()), (Code::FailedPrecondition, "TENANT_SUSPENDED"));
    });
}
