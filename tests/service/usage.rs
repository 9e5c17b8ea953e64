//! Measured usage: its parts, the largest owners, and the history.

use chrono::{Duration, TimeZone as _, Utc};
use prost_types::Timestamp;
use strongroom::{
    app::quotas::measure::measure_usage,
    domain::clock::Clock as _,
    proto::v1::{
        GetUsageHistoryRequest, GetUsageHistoryResponse, GetUsageRequest, ListTopOwnersRequest,
        ListTopOwnersResponse, UsageBreakdown,
    },
};
use tonic::{Code, Status};

use crate::harness::{Caller, Service, file_id, reason, service_test, spec, violated_fields};

const MEASURE_INTERVAL: Duration = Duration::hours(1);

impl Caller {
    async fn breakdown(&self) -> Option<UsageBreakdown> {
        self.quotas.clone().get_usage(GetUsageRequest::default()).await.unwrap().into_inner().breakdown
    }

    async fn top_owners(&self, page_size: i32, page_token: &str) -> Result<ListTopOwnersResponse, Status> {
        let request =
            ListTopOwnersRequest { page_size, page_token: page_token.to_owned(), ..Default::default() };
        Ok(self.quotas.clone().list_top_owners(request).await?.into_inner())
    }

    async fn history(&self, request: GetUsageHistoryRequest) -> Result<GetUsageHistoryResponse, Status> {
        Ok(self.quotas.clone().get_usage_history(request).await?.into_inner())
    }

    /// Returns the used bytes of all samples, read in pages of two.
    async fn sampled_bytes(&self) -> Vec<i64> {
        let (mut bytes, mut page_token) = (Vec::new(), String::new());
        loop {
            let page = GetUsageHistoryRequest { page_size: 2, page_token, ..Default::default() };
            let page = self.history(page).await.unwrap();
            bytes.extend(page.samples.iter().map(|sample| sample.used_bytes));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return bytes;
            }
        }
    }
}

async fn measure(s: &Service) {
    s.clock.advance(MEASURE_INTERVAL);
    assert_eq!(measure_usage(&s.app).await.unwrap().failed, 0);
}

#[test]
fn versions_and_trash_are_reported_apart() {
    service_test(|s| async move {
        let alice = s.alice();
        let kept = file_id(&alice.upload(spec("kept"), &[1; 100]).await.unwrap());
        alice.upload_version(&kept, &[2; 30]).await.unwrap();
        alice.upload_version(&kept, &[3; 7]).await.unwrap();
        let trashed = file_id(&alice.upload(spec("trashed"), &[4; 1_000]).await.unwrap());
        alice.upload_version(&trashed, &[5; 2_000]).await.unwrap();
        alice.delete(&trashed).await.unwrap();
        assert_eq!(s.ada().breakdown().await, None, "not measured yet");
        measure(&s).await;
        let parts = s.ada().breakdown().await.unwrap();
        assert_eq!((parts.file_count, parts.current_bytes), (1, 7));
        assert_eq!((parts.old_version_count, parts.old_version_bytes), (2, 130));
        assert_eq!((parts.trash_file_count, parts.trash_bytes), (1, 3_000));
        assert!(parts.measure_time.is_some());
        assert_eq!(s.alice().breakdown().await, None, "a member does not see the files of others");

        // Within the interval nothing is measured again.
        s.alice().purge(&trashed).await.unwrap();
        assert_eq!(measure_usage(&s.app).await.unwrap().done, 0);
        assert_eq!(s.ada().breakdown().await.unwrap(), parts);
        measure(&s).await;
        assert_eq!(s.ada().breakdown().await.unwrap().trash_bytes, 0);
    });
}

#[test]
fn largest_owners_are_listed_in_pages() {
    service_test(|s| async move {
        for (owner, sizes) in [("alice", &[50, 60][..]), ("bob", &[500]), ("carol", &[110]), ("dave", &[1])] {
            let caller = s.member(owner, "acme", "member", &[]);
            for size in sizes {
                caller.upload(spec("a"), &vec![0; *size]).await.unwrap();
            }
        }
        s.mallory().upload(spec("a"), &[0; 10_000]).await.unwrap();
        measure(&s).await;
        let (ada, mut listed, mut token) = (s.ada(), Vec::new(), String::new());
        loop {
            let page = ada.top_owners(1, &token).await.unwrap();
            assert_eq!(page.owner_count, 4);
            listed.extend(page.owners.into_iter().map(|owner| (owner.owner_id, owner.total_bytes)));
            token = page.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        let expected = [("bob", 500), ("alice", 110), ("carol", 110), ("dave", 1)];
        assert_eq!(listed, expected.map(|(owner, bytes)| (owner.to_owned(), bytes)));

        let error = s.alice().top_owners(0, "").await.unwrap_err();
        assert_eq!((error.code(), reason(&error).as_str()), (Code::PermissionDenied, "NOT_ALLOWED"));
        let token = ada.top_owners(1, "").await.unwrap().next_page_token;
        let error = s.gus().top_owners(1, &token).await.unwrap_err();
        assert_eq!(reason(&error), "PAGE_TOKEN_INVALID", "a token belongs to its tenant");
        let request = GetUsageHistoryRequest { page_token: token, ..Default::default() };
        assert_eq!(reason(&ada.history(request).await.unwrap_err()), "PAGE_TOKEN_INVALID", "and to its list");
    });
}

#[test]
fn history_has_one_sample_for_each_day() {
    service_test(|s| async move {
        s.ada().upload(spec("a"), &[0; 100]).await.unwrap();
        let midnight = Utc.from_utc_datetime(&s.clock.now().date_naive().and_hms_opt(0, 0, 0).unwrap());
        s.clock.advance(midnight + Duration::hours(30) - s.clock.now());
        for _day in 0..5 {
            for _measurement in 0..3 {
                measure(&s).await;
                s.ada().upload(spec("more"), &[0; 10]).await.unwrap();
            }
            s.clock.advance(Duration::hours(21));
        }
        let ada = s.ada();
        assert_eq!(ada.sampled_bytes().await, [100, 130, 160, 190, 220], "the first measurement of each day");
        let page =
            ada.history(GetUsageHistoryRequest { page_size: 100, ..Default::default() }).await.unwrap();
        let second = page.samples[1].sample_time;
        let range = GetUsageHistoryRequest {
            start_time: second,
            end_time: page.samples[3].sample_time,
            ..Default::default()
        };
        let part = ada.history(range.clone()).await.unwrap();
        assert_eq!(part.samples, page.samples[1..3]);
        let first = ada.history(GetUsageHistoryRequest { page_size: 1, ..range.clone() }).await.unwrap();
        let other = GetUsageHistoryRequest { page_token: first.next_page_token, ..Default::default() };
        assert_eq!(reason(&ada.history(other).await.unwrap_err()), "PAGE_TOKEN_INVALID", "another range");
        let reversed = GetUsageHistoryRequest { end_time: second, ..range };
        assert_eq!(violated_fields(&ada.history(reversed).await.unwrap_err()), ["end_time"]);
    });
}

#[test]
fn growth_predicts_when_the_quota_is_full() {
    service_test(|s| async move {
        s.ada().set_limit_bytes(2_000).await;
        s.ada().upload(spec("a"), &[0; 100]).await.unwrap();
        measure(&s).await;
        let first = s.ada().history(GetUsageHistoryRequest::default()).await.unwrap();
        assert_eq!((first.growth_bytes_per_day, first.days_until_full), (None, None), "less than a day");
        s.clock.advance(Duration::days(10));
        s.ada().upload(spec("b"), &[0; 1_000]).await.unwrap();
        let page = s.ada().history(GetUsageHistoryRequest::default()).await.unwrap();
        assert_eq!((page.growth_bytes_per_day, page.days_until_full), (Some(100), Some(9)));
    });
}

#[test]
fn samples_are_kept_for_400_days() {
    service_test(|s| async move {
        s.ada().upload(spec("a"), b"x").await.unwrap();
        measure(&s).await;
        let sampled = |history: GetUsageHistoryResponse| -> Vec<Option<Timestamp>> {
            history.samples.into_iter().map(|sample| sample.sample_time).collect()
        };
        let first = sampled(s.ada().history(GetUsageHistoryRequest::default()).await.unwrap());
        s.clock.advance(Duration::days(399));
        measure_usage(&s.app).await.unwrap();
        let both = sampled(s.ada().history(GetUsageHistoryRequest::default()).await.unwrap());
        assert_eq!((both.len(), both[0]), (2, first[0]));
        s.clock.advance(Duration::days(1));
        measure_usage(&s.app).await.unwrap();
        let kept = sampled(s.ada().history(GetUsageHistoryRequest::default()).await.unwrap());
        assert_eq!(kept.len(), 2, "the first sample is dropped");
        assert_eq!(kept[0], both[1]);
    });
}
