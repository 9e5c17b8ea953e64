//! Tests of the byte budget: acquiring, releasing, waiting and sharing.

use futures::FutureExt;
use uuid::Uuid;

use super::*;
use crate::{admission::CallerKey, domain::ids::TenantId};

/// A tenant, whose share has no callers.
fn tenant(number: u128) -> Holder {
    Holder::of_tenant(TenantId::from_uuid(Uuid::from_u128(number)))
}

/// The default part size, which is also the size of the reserve.
const PART: usize = 20;

/// Returns a budget with a pool of 120 bytes, whose reserve is in use.
fn budget_without_reserve() -> (ByteBudget, OwnedSemaphorePermit) {
    let budget = ByteBudget::new(140, PART, 200);
    let reserve = Arc::clone(&budget.0.reserve).try_acquire_owned().unwrap();
    (budget, reserve)
}

/// Returns a permit if the bytes can be granted at once.
fn try_permit(budget: &ByteBudget, tenant: Holder, bytes: usize) -> Option<BytePermit> {
    let mut permit = budget.new_permit(tenant, PART);
    permit.grow(bytes).now_or_never().map(|grown| grown.map(|()| permit).unwrap())
}

#[test]
fn dropped_permit_releases_its_bytes() {
    let budget = ByteBudget::new(140, PART, 200);
    let mut permit = budget.new_permit(tenant(1), PART);
    permit.grow(60).now_or_never().unwrap().unwrap();
    permit.grow(30).now_or_never().unwrap().unwrap();
    assert_eq!(budget.used_bytes(), 90);
    drop(permit);
    assert_eq!(budget.used_bytes(), 0);
}

#[test]
fn half_filled_parts_do_not_deadlock() {
    let budget = ByteBudget::new(140, PART, 200);
    let mut parts = [
        budget.new_permit(tenant(1), PART),
        budget.new_permit(tenant(1), PART),
        budget.new_permit(tenant(1), PART),
    ];
    for part in &mut parts {
        part.grow(30).now_or_never().unwrap().unwrap();
    }
    let [first, second, third] = &mut parts;
    first.grow(30).now_or_never().expect("one part takes the reserve").unwrap();
    first.grow(1_000).now_or_never().expect("the reserve fills the part").unwrap();
    assert!(second.grow(30).now_or_never().is_none(), "the next part waits");
    assert!(third.grow(30).now_or_never().is_none());
    let [first, mut second, _third] = parts;
    drop(first);
    second.grow(30).now_or_never().expect("served once the first part is released").unwrap();
}

#[test]
fn single_tenant_gets_three_quarters_and_leaves_free_bytes() {
    let (budget, _reserve) = budget_without_reserve();
    let first: Vec<BytePermit> = std::iter::from_fn(|| try_permit(&budget, tenant(1), 1)).collect();
    assert_eq!(first.len(), 90);
    let second: Vec<BytePermit> = std::iter::from_fn(|| try_permit(&budget, tenant(2), 1)).collect();
    assert_eq!(second.len(), 22);
    let third: Vec<BytePermit> = std::iter::from_fn(|| try_permit(&budget, tenant(3), 1)).collect();
    assert_eq!(third.len(), 6, "a third tenant finds free bytes");
    assert!(try_permit(&budget, tenant(1), 1).is_none(), "the first tenant's share has shrunk");
}

#[test]
fn single_caller_leaves_bytes_to_its_colleagues() {
    let (budget, _reserve) = budget_without_reserve();
    let caller = |name| {
        let tenant = TenantId::from_uuid(Uuid::from_u128(1));
        Holder::new(tenant, CallerKey::of_user(name))
    };
    let first: Vec<BytePermit> = std::iter::from_fn(|| try_permit(&budget, caller("alice"), 1)).collect();
    assert_eq!(first.len(), 67, "three quarters of the tenant's 90");
    assert!(try_permit(&budget, caller("bob"), 17).is_some());
}

#[test]
fn released_bytes_serve_waiters_in_order() {
    let (budget, _reserve) = budget_without_reserve();
    let held = try_permit(&budget, tenant(1), 90).unwrap();
    let (mut large, mut small) = (budget.new_permit(tenant(1), PART), budget.new_permit(tenant(1), PART));
    let mut large_grows = Box::pin(large.grow(80));
    let mut small_grows = Box::pin(small.grow(1));
    assert!(large_grows.as_mut().now_or_never().is_none());
    assert!(small_grows.as_mut().now_or_never().is_none(), "waiters of one tenant are served in order");
    drop(held);
    assert!(large_grows.as_mut().now_or_never().is_some());
    assert!(small_grows.as_mut().now_or_never().is_some());
    assert_eq!(budget.used_bytes(), 81);
}

#[test]
fn dropped_waiter_holds_no_bytes_and_does_not_block() {
    let (budget, _reserve) = budget_without_reserve();
    let held = try_permit(&budget, tenant(1), 60).unwrap();
    let (mut first, mut second) = (budget.new_permit(tenant(1), PART), budget.new_permit(tenant(1), PART));
    let mut dropped = Box::pin(first.grow(90));
    let mut waiting = Box::pin(second.grow(10));
    assert!(dropped.as_mut().now_or_never().is_none());
    assert!(waiting.as_mut().now_or_never().is_none());
    drop(dropped);
    assert!(waiting.as_mut().now_or_never().is_some());
    drop(waiting);
    drop((second, held));
    assert_eq!(budget.used_bytes(), 0);
}

#[test]
fn grant_of_dropped_waiter_is_released() {
    let (budget, _reserve) = budget_without_reserve();
    let held = try_permit(&budget, tenant(1), 90).unwrap();
    let mut permit = budget.new_permit(tenant(1), PART);
    let mut granted = Box::pin(permit.grow(50));
    assert!(granted.as_mut().now_or_never().is_none());
    drop(held);
    assert_eq!(budget.used_bytes(), 50, "granted, but not received yet");
    drop(granted);
    assert_eq!(budget.used_bytes(), 0);
}

#[test]
fn rejects_request_while_too_many_bytes_wait() {
    let (budget, _reserve) = budget_without_reserve();
    let _held = try_permit(&budget, tenant(1), 90).unwrap();
    let (mut first, mut second) = (budget.new_permit(tenant(1), PART), budget.new_permit(tenant(1), PART));
    let mut waits = Box::pin(first.grow(150));
    assert!(waits.as_mut().now_or_never().is_none());
    assert!(second.grow(16).now_or_never().unwrap().is_err(), "166 bytes of 165 would wait");
    assert!(second.grow(15).now_or_never().is_none(), "15 bytes may wait");
    let mut other = budget.new_permit(tenant(2), PART);
    assert!(other.grow(31).now_or_never().is_none(), "the bytes of another tenant may wait");
    drop(waits);
    assert!(second.grow(165).now_or_never().is_none());
    assert_eq!(budget.0.waiting_bytes.status().in_use, 0);
}

#[test]
fn waiting_bytes_of_one_caller_leave_some_to_its_colleagues() {
    let (budget, _reserve) = budget_without_reserve();
    let _held = [try_permit(&budget, tenant(2), 90).unwrap(), try_permit(&budget, tenant(3), 22).unwrap()];
    let caller = |name| {
        let tenant = TenantId::from_uuid(Uuid::from_u128(1));
        budget.new_permit(Holder::new(tenant, CallerKey::of_user(name)), PART)
    };
    let mut waiting: Vec<BytePermit> = (0..20).map(|_| caller("alice")).collect();
    let mut growing: Vec<_> = waiting.iter_mut().map(|permit| Box::pin(permit.grow(10))).collect();
    let grown: Vec<_> = growing.iter_mut().map(|grows| grows.as_mut().now_or_never()).collect();
    assert_eq!(grown.iter().filter(|grown| grown.is_none()).count(), 13, "the others are refused: {grown:?}");
    assert!(caller("bob").grow(10).now_or_never().is_none(), "the bytes of a colleague may wait");
}

#[test]
fn uploads_of_one_caller_wait_with_their_chunks() {
    let uploads = crate::config::Config::defaults().unwrap().uploads;
    let part = uploads.part_size_bytes;
    let budget = ByteBudget::new(uploads.byte_budget_bytes, part, uploads.waiting_bytes_max());
    let caller = Holder::new(TenantId::from_uuid(Uuid::from_u128(1)), CallerKey::of_user("alice"));
    let _held: Vec<BytePermit> =
        std::iter::from_fn(|| try_permit(&budget, caller, uploads.chunk_size_max_bytes)).collect();
    let mut waiting: Vec<BytePermit> =
        (0..uploads.decode_permits).map(|_| budget.new_permit(caller, part)).collect();
    let mut growing: Vec<_> =
        waiting.iter_mut().map(|permit| Box::pin(permit.grow(uploads.chunk_size_max_bytes))).collect();
    assert!(growing.iter_mut().all(|grows| grows.as_mut().now_or_never().is_none()), "none is refused");
}

#[test]
fn large_part_acquires_excess_over_reserve_first() {
    let budget = ByteBudget::new(140, PART, 200);
    let mut large = budget.new_permit(tenant(1), 3 * PART);
    large.grow(1).now_or_never().unwrap().unwrap();
    assert_eq!(budget.used_bytes(), 40, "the excess over the reserve");
    large.grow(39).now_or_never().unwrap().unwrap();
    assert_eq!(budget.used_bytes(), 40, "the excess is used first");
    // Another tenant takes the rest of the pool; the rest of the part fits the reserve.
    let mut other = budget.new_permit(tenant(2), PART);
    other.grow(60).now_or_never().unwrap().unwrap();
    large.grow(PART).now_or_never().expect("the rest fits the reserve").unwrap();
    assert_eq!(budget.used_bytes(), 100);
    assert!(budget.new_permit(tenant(3), PART).grow(16).now_or_never().is_none(), "the reserve is taken");
    drop((large, other));
    assert_eq!(budget.used_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn large_part_waits_unless_it_can_never_fit() {
    let budget = ByteBudget::new(140, PART, 200);
    let refused = budget.new_permit(tenant(1), PART + 91).grow(1).now_or_never();
    assert_eq!(refused, Some(Err(BudgetError::PartTooLarge)), "a single tenant gets three quarters of 120");
    let held = try_permit(&budget, tenant(2), 60).unwrap();
    let mut large = budget.new_permit(tenant(1), PART + 90);
    assert_eq!(large.grow(1).await, Err(BudgetError::Overloaded));
    assert_eq!(budget.0.waiting_bytes.status().in_use, 0);
    let (grown, ()) = tokio::join!(large.grow(1), async { drop(held) });
    assert_eq!(grown, Ok(()), "the request fits once bytes are released");
    assert_eq!(budget.used_bytes(), 90);
}
