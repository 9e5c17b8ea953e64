//! Tests of the rounds, with numbers as items.

use std::sync::Mutex;

use futures::FutureExt as _;
use uuid::Uuid;

use super::*;

/// A list of numbers. The numbers that are done leave the list.
#[derive(Default)]
struct Numbers {
    due: Mutex<Vec<u32>>,
    failing: Vec<u32>,
    skipped: Vec<u32>,
    /// The number at which the database becomes unreachable.
    unreachable_at: Option<u32>,
    provider: &'static str,
    /// The number that is never done.
    hangs_at: Option<u32>,
    /// The number after which the circuit breaker of the store is open.
    blocked_after: Option<u32>,
    processed: Mutex<Vec<u32>>,
}

impl Numbers {
    fn new(due: impl IntoIterator<Item = u32>) -> Self {
        Self { due: Mutex::new(due.into_iter().collect()), ..Self::default() }
    }

    fn failing(self, failing: impl IntoIterator<Item = u32>) -> Self {
        Self { failing: failing.into_iter().collect(), ..self }
    }

    fn take_processed(&self) -> Vec<u32> {
        std::mem::take(&mut self.processed.lock().unwrap())
    }
}

impl DueItems for Numbers {
    type Item = u32;
    type Position = u32;

    const ACTION: &'static str = "process number";
    const PAGE_ITEMS: usize = 3;

    fn round_store(&self) -> Option<RoundStore<'_>> {
        let processed = self.processed.lock().unwrap();
        let is_blocked = self.blocked_after.is_some_and(|number| processed.contains(&number));
        Some(RoundStore { provider: self.provider, is_blocked })
    }

    async fn list_page(&self, after: Option<u32>, limit: i64) -> Result<Vec<u32>, Error> {
        let due = self.due.lock().unwrap();
        let next = due.iter().copied().filter(|number| after.is_none_or(|after| *number > after));
        Ok(next.take(usize::try_from(limit).unwrap()).collect())
    }

    fn position(item: &u32) -> u32 {
        *item
    }

    fn fields<'a>(&self, _: &'a u32) -> ItemFields<'a> {
        ItemFields::new(TenantId::from_uuid(Uuid::nil()))
    }

    async fn process(&self, item: &u32) -> Result<ItemOutcome, Error> {
        self.processed.lock().unwrap().push(*item);
        if self.hangs_at == Some(*item) {
            return std::future::pending().await;
        }
        if self.unreachable_at == Some(*item) {
            return Err(Error::database_unavailable());
        }
        if self.failing.contains(item) {
            return Err(Error::PageTokenInvalid);
        }
        if self.skipped.contains(item) {
            return Ok(ItemOutcome::Skipped);
        }
        self.due.lock().unwrap().retain(|number| number != item);
        Ok(ItemOutcome::Done)
    }
}

fn report(done: usize, failed: usize, has_more: bool) -> RoundReport {
    RoundReport { done, failed, has_more }
}

#[tokio::test]
async fn failing_item_does_not_stop_others() {
    let (numbers, rotation) = (Numbers::new([1, 2]).failing([1]), Rotation::default());
    assert_eq!(run_round(&numbers, &rotation).await.unwrap(), report(1, 1, true));
    assert_eq!(numbers.take_processed(), [1, 2]);
    assert_eq!(run_round(&numbers, &rotation).await.unwrap(), report(0, 1, false));
}

#[tokio::test]
async fn failing_page_does_not_block_next_page() {
    let (numbers, rotation) = (Numbers::new(1..=4).failing(1..=3), Rotation::default());
    assert_eq!(run_round(&numbers, &rotation).await.unwrap(), report(0, 3, false), "no retry at once");
    assert_eq!(run_round(&numbers, &rotation).await.unwrap(), report(1, 0, true));
    assert_eq!(numbers.take_processed(), [1, 2, 3, 4]);
    assert_eq!(run_round(&numbers, &rotation).await.unwrap(), report(0, 3, false));
    assert_eq!(numbers.take_processed(), [1, 2, 3], "starts over at the end of the list");
}

#[tokio::test]
async fn full_page_of_skipped_items_has_more() {
    let numbers = Numbers { skipped: vec![1, 2, 3, 4], ..Numbers::new(1..=4) };
    let rotation = Rotation::default();
    assert_eq!(run_round(&numbers, &rotation).await.unwrap(), report(0, 0, true));
    assert_eq!(run_round(&numbers, &rotation).await.unwrap(), report(0, 0, false));
}

#[tokio::test]
async fn round_that_starts_over_with_skipped_items_has_no_more() {
    let numbers = Numbers { skipped: vec![1, 2, 3], ..Numbers::new(1..=3) };
    let rotation = Rotation::default();
    assert_eq!(run_round(&numbers, &rotation).await.unwrap(), report(0, 0, true));
    assert_eq!(run_round(&numbers, &rotation).await.unwrap(), report(0, 0, false));
    assert_eq!(numbers.take_processed(), [1, 2, 3, 1, 2, 3]);
}

#[tokio::test]
async fn next_round_processes_items_of_a_cancelled_one() {
    let mut numbers = Numbers { hangs_at: Some(2), ..Numbers::new(1..=2) };
    let rotation = Rotation::default();
    for _ in 0..2 {
        assert!(run_round(&numbers, &rotation).now_or_never().is_none());
    }
    assert_eq!(numbers.take_processed(), [1, 2, 2], "a round that ends would have hidden the item");
    numbers.hangs_at = None;
    assert_eq!(run_round(&numbers, &rotation).await.unwrap(), report(1, 0, true));
    assert_eq!(numbers.take_processed(), [2]);
}

#[tokio::test]
async fn empty_list_has_no_more() {
    assert_eq!(run_round(&Numbers::default(), &Rotation::default()).await.unwrap(), report(0, 0, false));
}

#[tokio::test]
async fn each_provider_has_its_own_position() {
    let rotation = Rotation::default();
    let of = |provider| Numbers { provider, ..Numbers::new(1..=4).failing(1..=4) };
    let (a, b) = (of("a"), of("b"));
    run_round(&a, &rotation).await.unwrap();
    run_round(&b, &rotation).await.unwrap();
    run_round(&a, &rotation).await.unwrap();
    assert_eq!((a.take_processed(), b.take_processed()), (vec![1, 2, 3, 4], vec![1, 2, 3]));
}

#[tokio::test]
async fn unreachable_database_ends_round_after_its_item() {
    let numbers = Numbers { unreachable_at: Some(2), ..Numbers::new(1..=3) };
    let rotation = Rotation::default();
    let error = run_round(&numbers, &rotation).await.unwrap_err();
    assert!(matches!(error, Error::DatabaseUnavailable(_)), "{error}");
    assert_eq!(numbers.take_processed(), [1, 2]);
    assert_eq!(run_round(&numbers, &rotation).await.unwrap(), report(1, 0, true));
    assert_eq!(numbers.take_processed(), [3], "the next round continues after the item");
}

#[tokio::test]
async fn round_ends_when_its_store_is_blocked() {
    let numbers = Numbers { blocked_after: Some(2), ..Numbers::new(1..=3).failing([1, 2]) };
    let rotation = Rotation::default();
    assert_eq!(run_round(&numbers, &rotation).await.unwrap(), report(0, 2, false));
    assert_eq!(numbers.take_processed(), [1, 2]);
    assert_eq!(run_round(&numbers, &rotation).await.unwrap(), report(1, 0, true));
    assert_eq!(numbers.take_processed(), [3], "the next round continues after the item");
}

/// Numbers that are processed two at a time.
struct Pairs(Numbers);

impl DueItems for Pairs {
    type Item = u32;
    type Position = u32;

    const ACTION: &'static str = "process pair";
    const PAGE_ITEMS: usize = 3;
    const BATCH_ITEMS: usize = 2;

    async fn list_page(&self, after: Option<u32>, limit: i64) -> Result<Vec<u32>, Error> {
        self.0.list_page(after, limit).await
    }

    fn position(item: &u32) -> u32 {
        *item
    }

    fn fields<'a>(&self, item: &'a u32) -> ItemFields<'a> {
        self.0.fields(item)
    }

    async fn process(&self, item: &u32) -> Result<ItemOutcome, Error> {
        self.0.process(item).await
    }

    async fn process_batch(&self, items: &[u32]) -> Vec<Result<ItemOutcome, Error>> {
        assert!(items.len() <= 2, "{items:?}");
        let mut outcomes = Vec::new();
        for item in items {
            outcomes.push(self.process(item).await);
        }
        outcomes
    }
}

#[tokio::test]
async fn each_item_of_a_batch_has_its_own_outcome() {
    let (pairs, rotation) = (Pairs(Numbers::new(1..=4).failing([1])), Rotation::default());
    assert_eq!(run_round(&pairs, &rotation).await.unwrap(), report(2, 1, true));
    assert_eq!(pairs.0.take_processed(), [1, 2, 3]);
    assert_eq!(run_round(&pairs, &rotation).await.unwrap(), report(1, 0, true));
    assert_eq!(pairs.0.take_processed(), [4]);
}

#[tokio::test]
async fn pass_processes_each_item_once() {
    let numbers = Numbers::new(1..=7).failing([1, 2, 3, 7]);
    assert_eq!(run_pass(&numbers, usize::MAX).await.unwrap(), report(3, 4, false));
    assert_eq!(numbers.take_processed(), [1, 2, 3, 4, 5, 6, 7]);
}

#[tokio::test]
async fn pass_stops_after_page_that_reaches_limit() {
    let numbers = Numbers::new(1..=7);
    assert_eq!(run_pass(&numbers, 4).await.unwrap(), report(6, 0, true));
    assert_eq!(run_pass(&numbers, 4).await.unwrap(), report(1, 0, false));
}

#[test]
fn reports_add_up() {
    let mut total = report(1, 0, true);
    total += report(2, 3, false);
    assert_eq!(total, report(3, 3, true));
}
