//! Watches: in order, without loss, and nothing that the watcher may not see.

use std::collections::BTreeSet;

use strongroom::proto::v1::{
    EntityRef, File, FileEventKind as Kind, UploadSpec, Visibility, WatchFilesRequest, WatchFilter,
};
use tonic::Code;
use tonic_types::StatusExt;

use crate::harness::{Caller, Service, Watcher, file_id, reason, service_test, service_test_with, spec};

const REQUEST: &str = "0193a7a0-0000-7000-8000-0000000000aa";

fn private(name: &str) -> UploadSpec {
    UploadSpec { visibility: Visibility::Owner.into(), ..spec(name) }
}

pub(crate) async fn uploaded(caller: &Caller, spec: UploadSpec) -> String {
    file_id(&caller.upload(spec, b"x").await.unwrap())
}

async fn filtered(caller: &Caller, filter: WatchFilter) -> Watcher {
    let request = WatchFilesRequest { cursor: String::new(), filter: Some(filter) };
    caller.watch_with(request).await.unwrap()
}

#[test]
fn every_change_is_told_in_the_order_in_which_it_was_made() {
    service_test(|s| async move {
        let (alice, bob) = (s.alice(), s.bob());
        let mut watcher = bob.watch().await;
        let file = uploaded(&alice, spec("a")).await;
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
            let event = watcher.event().await;
            assert_eq!((event.kind(), event.file_id.as_str()), (kind, file.as_str()));
            assert_eq!((event.actor_id.as_str(), event.version), ("alice", 1));
            positions.push(event.position);
        }
        assert!(positions.is_sorted_by(|a, b| a < b), "{positions:?}");
    });
}

#[test]
fn an_event_shows_its_file_as_it_is_now() {
    service_test(|s| async move {
        let (alice, mut watcher) = (s.alice(), s.bob().watch().await);
        let begun = watcher.cursor.clone();
        let file = uploaded(&alice, spec("a")).await;
        assert_eq!(watcher.event().await.file.unwrap().name, "a");
        alice.rename(&file, "b").await.unwrap();
        let mut again = s.bob().watch_from(&begun).await.unwrap();
        let created = again.event().await;
        assert_eq!((created.kind(), created.file.unwrap().name), (Kind::Created, "b".to_owned()));
    });
}

/// Sixteen writers at once, and a watcher that comes back again and again.
#[test]
fn a_watcher_that_comes_back_with_its_cursor_misses_nothing_and_hears_nothing_twice() {
    const WRITERS: usize = 16;
    const FILES: usize = 12;
    service_test(|s| async move {
        let mut watcher = s.bob().watch().await;
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let alice = s.alice();
                tokio::spawn(async move {
                    let mut written = Vec::new();
                    for number in 0..FILES {
                        let answer = alice.upload(spec(&format!("{writer}-{number}")), b"x").await.unwrap();
                        written.push((answer.event_position.clone(), file_id(&answer)));
                    }
                    written
                })
            })
            .collect();
        let mut heard = Vec::new();
        while heard.len() < WRITERS * FILES {
            for _ in 0..7.min(WRITERS * FILES - heard.len()) {
                let event = watcher.event().await;
                heard.push((event.position, event.file_id));
            }
            watcher = s.bob().watch_from(&watcher.cursor).await.unwrap();
        }
        assert!(heard.is_sorted_by(|a, b| a.0 < b.0), "in order, and none twice");
        let mut written = BTreeSet::new();
        for writer in writers {
            written.extend(writer.await.unwrap());
        }
        assert_eq!(heard.into_iter().collect::<BTreeSet<_>>(), written);
    });
}

#[test]
fn a_late_commit_is_not_jumped_over() {
    service_test_with(
        |config| config.watches.heartbeat_seconds = 1,
        |s| async move {
            let alice = s.alice();
            let (late, mut watcher) = (uploaded(&alice, spec("late")).await, s.bob().watch().await);
            // It has its number, and its event, and does not end.
            let held = s.database.as_app().await;
            let tenant = alice.tenant_id().await;
            let begin = format!(
                "BEGIN; SET LOCAL app.tenant_id = '{tenant}'; SET LOCAL app.audience_min = '1';
                 INSERT INTO events (tenant_id, create_time, kind, file_id, version, actor_id, owner_id, audience, readers)
                 VALUES ('{tenant}', app.now(), 7, '{late}', 1, 'alice', 'alice', 3, '{{}}')"
            );
            held.batch_execute(&begin).await.unwrap();
            let number: String =
                held.query_one("SELECT pg_current_xact_id()::text", &[]).await.unwrap().get(0);
            let number = format!("{:016x}", number.parse::<u64>().unwrap());
            let early = alice.upload(spec("early"), b"x").await.unwrap();
            assert!(early.event_position > number, "it began later and committed first");
            // Signs of life come, and no event; none of them claims to have passed the one that is held.
            for _ in 0..2 {
                let position = watcher.heartbeat().await.position;
                assert!(position <= format!("{number}{}", "0".repeat(16)), "{position} {number}");
            }
            held.batch_execute("COMMIT").await.unwrap();
            assert_eq!(watcher.what().await, (Kind::Updated, late));
            assert_eq!(watcher.what().await, (Kind::Created, file_id(&early)));
        },
    );
}

#[test]
fn a_heartbeat_moves_the_cursor_past_what_the_filter_holds_back() {
    service_test_with(
        |config| config.watches.heartbeat_seconds = 1,
        |s| async move {
            let alice = s.alice();
            let filter = WatchFilter { file_id: REQUEST.to_owned(), ..WatchFilter::default() };
            let mut watcher = filtered(&alice, filter).await;
            let written = alice.upload(spec("a"), b"x").await.unwrap().event_position;
            while watcher.heartbeat().await.position < written {}
            let mut unfiltered = alice.watch_from(&watcher.cursor).await.unwrap();
            let next = uploaded(&alice, spec("b")).await;
            assert_eq!(unfiltered.what().await, (Kind::Created, next), "what lies before is not told again");
        },
    );
}

#[test]
fn a_filter_lets_through_what_it_names_and_what_is_gone() {
    service_test(|s| async move {
        let (alice, bob) = (s.alice(), s.bob());
        let kinds = WatchFilter { kinds: vec![Kind::Purged.into()], ..WatchFilter::default() };
        let owner = WatchFilter { owner_id: "bob".to_owned(), ..WatchFilter::default() };
        let category = WatchFilter { category: "report".to_owned(), ..WatchFilter::default() };
        let (mut purged, mut bobs, mut reports) =
            (filtered(&alice, kinds).await, filtered(&alice, owner).await, filtered(&alice, category).await);
        let of_alice = uploaded(&alice, spec("a")).await;
        let of_bob = uploaded(&bob, UploadSpec { category: "report".to_owned(), ..spec("b") }).await;
        // Each watcher has gone past the first before it is purged.
        assert_eq!(bobs.what().await, (Kind::Created, of_bob.clone()));
        assert_eq!(reports.what().await, (Kind::Created, of_bob));
        alice.purge(&of_alice).await.unwrap();
        for watcher in [&mut purged, &mut bobs, &mut reports] {
            assert_eq!(watcher.what().await, (Kind::Purged, of_alice.clone()));
        }
        let wrong = WatchFilter { kinds: vec![0], file_id: "7".to_owned(), ..WatchFilter::default() };
        let request = WatchFilesRequest { cursor: String::new(), filter: Some(wrong) };
        let Err(refused) = alice.watch_with(request).await else { panic!("accepted") };
        assert_eq!(crate::harness::violated_fields(&refused), ["filter.kinds[0]", "filter.file_id"]);
    });
}

#[test]
fn nothing_is_heard_of_files_that_the_watcher_could_never_see() {
    service_test(|s| async move {
        let (alice, mut bob, mut ada) = (s.alice(), s.bob().watch().await, s.ada().watch().await);
        let mut mallory = s.mallory().watch().await;
        let secret = uploaded(&alice, private("secret")).await;
        alice.rename(&secret, "still secret").await.unwrap();
        alice.purge(&secret).await.unwrap();
        let open = uploaded(&alice, spec("open")).await;
        assert_eq!(bob.what().await, (Kind::Created, open.clone()), "the first that bob hears of");
        for (kind, file) in [
            (Kind::Created, &secret),
            (Kind::Updated, &secret),
            (Kind::Purged, &secret),
            (Kind::Created, &open),
        ] {
            assert_eq!(ada.what().await, (kind, file.clone()), "an admin hears of everything");
        }
        let theirs = uploaded(&s.mallory(), spec("theirs")).await;
        assert_eq!(mallory.what().await, (Kind::Created, theirs), "and nobody of another tenant's");
    });
}

#[test]
fn whoever_loses_sight_of_a_file_hears_of_it_and_learns_nothing_more() {
    service_test(|s| async move {
        let (alice, mut bob, mut ada) = (s.alice(), s.bob().watch().await, s.ada().watch().await);
        let begun = bob.cursor.clone();
        let file = uploaded(&alice, spec("open")).await;
        assert_eq!(bob.event().await.file.unwrap().name, "open");
        let hidden = File {
            id: file.clone(),
            name: "hidden".to_owned(),
            visibility: Visibility::Owner.into(),
            ..File::default()
        };
        alice.update(hidden, &["name", "visibility"]).await.unwrap();
        let lost = bob.event().await;
        assert_eq!((lost.kind(), &lost.file_id, lost.file), (Kind::Updated, &file, None));
        alice.rename(&file, "hidden once more").await.unwrap();
        alice.purge(&file).await.unwrap();
        let open = uploaded(&alice, spec("another")).await;
        assert_eq!(bob.what().await, (Kind::Created, open.clone()), "nothing of what came after");
        // Who reads the past learns no more of it than who was there.
        let mut late = s.bob().watch_from(&begun).await.unwrap();
        for kind in [Kind::Created, Kind::Updated] {
            let event = late.event().await;
            assert_eq!((event.kind(), &event.file_id, event.file), (kind, &file, None));
        }
        assert_eq!(late.what().await, (Kind::Created, open));
        for kind in [Kind::Created, Kind::Updated, Kind::Updated, Kind::Purged, Kind::Created] {
            assert_eq!(ada.event().await.kind(), kind);
        }
    });
}

#[test]
fn a_purge_is_heard_by_those_who_could_see_the_file_by_their_group() {
    service_test(|s| async move {
        let (teacher, mut friend, mut pupil) =
            (s.teacher(), s.friend().watch().await, s.pupil().watch().await);
        let class = EntityRef { r#type: "class".to_owned(), id: "7a".to_owned(), field: String::new() };
        let lesson = UploadSpec {
            category: "educational_content".to_owned(),
            attachments: vec![class],
            ..spec("lesson")
        };
        let file = uploaded(&teacher, lesson).await;
        teacher.purge(&file).await.unwrap();
        for kind in [Kind::Created, Kind::Purged] {
            assert_eq!(friend.what().await, (kind, file.clone()));
        }
        let open =
            uploaded(&teacher, UploadSpec { category: "media_resource".to_owned(), ..spec("open") }).await;
        assert_eq!(pupil.what().await, (Kind::Created, open), "and by nobody else");
    });
}

#[test]
fn a_cursor_of_another_tenant_and_a_damaged_one_are_refused() {
    service_test(|s| async move {
        let cursor = s.alice().watch().await.cursor;
        for (caller, cursor) in [
            (s.mallory(), cursor.clone()),
            (s.alice_alone(), cursor.clone()),
            (s.alice(), format!("{cursor}A")),
        ] {
            let Err(refused) = caller.watch_from(&cursor).await else { panic!("accepted") };
            assert_eq!(
                (refused.code(), reason(&refused)),
                (Code::InvalidArgument, "CURSOR_INVALID".to_owned())
            );
        }
        s.bob().watch_from(&cursor).await.unwrap();
    });
}

async fn is_too_old(s: &Service, cursor: &str) {
    let Err(refused) = s.alice().watch_from(cursor).await else { panic!("accepted") };
    assert_eq!((refused.code(), reason(&refused)), (Code::FailedPrecondition, "CURSOR_TOO_OLD".to_owned()));
    assert!(refused.message().contains("list again"), "{}", refused.message());
}

#[test]
fn a_cursor_older_than_events_are_kept_says_to_list_again() {
    service_test(|s| async move {
        let cursor = s.alice().watch().await.cursor;
        s.clock.advance(chrono::Duration::days(29));
        let fresh = s.alice().watch_from(&cursor).await.unwrap().cursor;
        assert_ne!(fresh, cursor);
        s.clock.advance(chrono::Duration::days(1));
        is_too_old(&s, &cursor).await;
        s.alice().watch().await;
    });
}

#[test]
fn a_cursor_before_dropped_events_says_to_list_again() {
    service_test_with(
        |config| config.retention.event_days = 3_000,
        |s| async move {
            let cursor = s.alice().watch().await.cursor;
            let ended = "SELECT inhrelid::regclass::text FROM pg_inherits
                WHERE inhparent = 'events'::regclass AND inhrelid::regclass::text ~ '[0-9]$' ORDER BY 1 LIMIT 2";
            for partition in s.owner.texts(ended).await {
                s.owner.run(&format!("DROP TABLE {partition}")).await;
            }
            is_too_old(&s, &cursor).await;
        },
    );
}

#[test]
fn old_events_are_dropped_by_the_month() {
    service_test(|s| async move {
        let count = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'events'::regclass";
        let before = s.owner.number(count).await;
        s.clock.advance(chrono::Duration::days(100));
        strongroom::worker::round(&s.app).await;
        let oldest = s.owner.number("SELECT extract(epoch FROM app.event_horizon())").await;
        assert!(
            oldest > s.owner.number("SELECT extract(epoch FROM now())").await,
            "{before} partitions before"
        );
    });
}

#[test]
fn a_cursor_of_another_history_is_refused() {
    service_test(|s| async move {
        let cursor = s.alice().watch().await.cursor;
        // As if the database had been restored from a backup.
        s.owner
            .run(
                "CREATE OR REPLACE FUNCTION app.event_incarnation() RETURNS text LANGUAGE sql STABLE
                 RETURN 'another'",
            )
            .await;
        is_too_old(&s, &cursor).await;
    });
}

#[test]
fn a_watch_ends_with_the_token_that_began_it() {
    service_test(|s| async move {
        let mut watcher = s.alice().watch().await;
        s.clock.advance(chrono::Duration::hours(2));
        let ended = watcher.end().await;
        assert_eq!((ended.code(), reason(&ended)), (Code::Unauthenticated, "CREDENTIALS_INVALID".to_owned()));
        s.alice().watch_from(&watcher.cursor).await.unwrap();
    });
}

#[test]
fn a_replica_that_goes_away_says_so_and_another_goes_on_from_the_cursor() {
    service_test(|s| async move {
        let mut watcher = s.alice().watch().await;
        let other = s.replica(|_| {}).await;
        s.begin_shutdown();
        let ended = watcher.end().await;
        assert_eq!((ended.code(), reason(&ended)), (Code::Unavailable, "SHUTTING_DOWN".to_owned()));
        assert!(ended.get_details_retry_info().is_some());
        let mut watcher = other.alice().watch_from(&watcher.cursor).await.unwrap();
        let file = uploaded(&other.alice(), spec("a")).await;
        assert_eq!(watcher.what().await, (Kind::Created, file));
        drop(watcher);
        other.stopped().await;
    });
}

#[test]
fn what_another_replica_commits_is_heard_of_too() {
    service_test(|s| async move {
        let mut watcher = s.alice().watch().await;
        let other = s.replica(|_| {}).await;
        let file = uploaded(&other.alice(), spec("a")).await;
        assert_eq!(watcher.what().await, (Kind::Created, file));
        other.stopped().await;
    });
}

#[test]
fn watches_of_a_tenant_are_limited() {
    service_test_with(
        |config| config.watches.streams_per_tenant_max = 1,
        |s| async move {
            let first = s.alice().watch().await;
            let Err(refused) = s.bob().watch_from("").await else { panic!("accepted") };
            let expected = (Code::FailedPrecondition, "WATCHES_EXHAUSTED".to_owned());
            assert_eq!((refused.code(), reason(&refused)), expected);
            assert!(refused.get_details_retry_info().is_none());
            assert_eq!(refused.get_details_error_info().unwrap().metadata["watch_count_max"], "1");
            s.mallory().watch().await;
            drop(first);
            s.until("the place is free again", || {
                let bob = s.bob();
                async move { bob.watch_from("").await.is_ok() }
            })
            .await;
        },
    );
}

#[test]
fn watches_of_a_replica_are_limited() {
    service_test_with(
        |config| config.watches.streams_max = 1,
        |s| async move {
            let _first = s.alice().watch().await;
            let Err(refused) = s.mallory().watch_from("").await else { panic!("accepted") };
            let expected = (Code::ResourceExhausted, "OVERLOADED".to_owned());
            assert_eq!((refused.code(), reason(&refused)), expected);
            assert!(refused.get_details_retry_info().is_some());
        },
    );
}

#[test]
fn a_watch_ends_when_its_tenant_is_suspended() {
    service_test(|s| async move {
        let mut watcher = s.bob().watch().await;
        let tenant = s.bob().tenant_id().await;
        s.operator().suspend(&tenant).await.unwrap();
        let ended = loop {
            match watcher.next().await {
                Ok(_) => {}
                Err(ended) => break ended,
            }
        };
        assert_eq!((ended.code(), reason(&ended).as_str()), (Code::FailedPrecondition, "TENANT_SUSPENDED"));
    });
}
