//! Room that is taken, given back, waited for, and shared.

use futures::FutureExt;
use uuid::Uuid;

use super::*;

fn tenant(number: u128) -> TenantId {
    TenantId::from_uuid(Uuid::from_u128(number))
}

/// A part of the usual size, and so the reserve.
const PART: usize = 20;

/// A pool of 120 bytes and a reserve that is in use.
fn without_reserve() -> (ByteBudget, OwnedSemaphorePermit) {
    let budget = ByteBudget::new(140, PART, 200);
    let reserve = Arc::clone(&budget.0.reserve).try_acquire_owned().unwrap();
    (budget, reserve)
}

/// Room for so many bytes, if there is any at once.
fn try_room(budget: &ByteBudget, tenant: TenantId, bytes: usize) -> Option<Room> {
    let mut room = budget.room(tenant, PART);
    room.grow(bytes).now_or_never().map(|grown| grown.map(|()| room).unwrap())
}

#[test]
fn a_dropped_part_gives_its_room_back() {
    let budget = ByteBudget::new(140, PART, 200);
    let mut room = budget.room(tenant(1), PART);
    room.grow(60).now_or_never().unwrap().unwrap();
    room.grow(30).now_or_never().unwrap().unwrap();
    assert_eq!(budget.used_bytes(), 90);
    drop(room);
    assert_eq!(budget.used_bytes(), 0);
    assert!(budget.0.state().tenants.is_empty(), "nobody is remembered without a reason");
}

#[test]
fn parts_that_fill_the_pool_half_way_do_not_wait_for_each_other_for_ever() {
    let budget = ByteBudget::new(140, PART, 200);
    let mut parts =
        [budget.room(tenant(1), PART), budget.room(tenant(1), PART), budget.room(tenant(1), PART)];
    for part in &mut parts {
        part.grow(30).now_or_never().unwrap().unwrap();
    }
    let [first, second, third] = &mut parts;
    first.grow(30).now_or_never().expect("one takes the reserve").unwrap();
    first.grow(1_000).now_or_never().expect("and may fill its part").unwrap();
    assert!(second.grow(30).now_or_never().is_none(), "the next must wait");
    assert!(third.grow(30).now_or_never().is_none());
    let [first, mut second, _third] = parts;
    drop(first);
    second.grow(30).now_or_never().expect("until the first has written its part").unwrap();
}

#[test]
fn a_tenant_alone_gets_three_quarters_and_who_comes_later_finds_room() {
    let (budget, _reserve) = without_reserve();
    let hog: Vec<Room> = std::iter::from_fn(|| try_room(&budget, tenant(1), 1)).collect();
    assert_eq!(hog.len(), 90);
    let second: Vec<Room> = std::iter::from_fn(|| try_room(&budget, tenant(2), 1)).collect();
    assert_eq!(second.len(), 22);
    let third: Vec<Room> = std::iter::from_fn(|| try_room(&budget, tenant(3), 1)).collect();
    assert_eq!(third.len(), 6, "however many come");
    assert!(try_room(&budget, tenant(1), 1).is_none(), "what the hog may hold has become less");
}

#[test]
fn room_that_comes_free_goes_to_those_who_wait_in_their_turn() {
    let (budget, _reserve) = without_reserve();
    let held = try_room(&budget, tenant(1), 90).unwrap();
    let (mut large, mut small) = (budget.room(tenant(1), PART), budget.room(tenant(1), PART));
    let mut large_grows = Box::pin(large.grow(80));
    let mut small_grows = Box::pin(small.grow(1));
    assert!(large_grows.as_mut().now_or_never().is_none());
    assert!(small_grows.as_mut().now_or_never().is_none(), "nobody overtakes");
    drop(held);
    assert!(large_grows.as_mut().now_or_never().is_some());
    assert!(small_grows.as_mut().now_or_never().is_some());
    assert_eq!(budget.used_bytes(), 81);
}

#[test]
fn who_leaves_while_waiting_leaves_nothing_behind_and_holds_nobody_up() {
    let (budget, _reserve) = without_reserve();
    let held = try_room(&budget, tenant(1), 60).unwrap();
    let (mut first, mut second) = (budget.room(tenant(1), PART), budget.room(tenant(1), PART));
    let mut leaves = Box::pin(first.grow(90));
    let mut stays = Box::pin(second.grow(10));
    assert!(leaves.as_mut().now_or_never().is_none());
    assert!(stays.as_mut().now_or_never().is_none());
    drop(leaves);
    assert!(stays.as_mut().now_or_never().is_some());
    drop(stays);
    drop((second, held));
    assert_eq!(budget.used_bytes(), 0);
}

#[test]
fn room_that_was_granted_to_somebody_who_left_comes_back() {
    let (budget, _reserve) = without_reserve();
    let held = try_room(&budget, tenant(1), 90).unwrap();
    let mut room = budget.room(tenant(1), PART);
    let mut leaves_too_late = Box::pin(room.grow(50));
    assert!(leaves_too_late.as_mut().now_or_never().is_none());
    drop(held);
    assert_eq!(budget.used_bytes(), 50, "granted, although nobody has taken it yet");
    drop(leaves_too_late);
    assert_eq!(budget.used_bytes(), 0);
    assert!(budget.0.state().tenants.is_empty());
}

#[test]
fn when_too_many_bytes_wait_the_next_is_refused_until_somebody_leaves() {
    let (budget, _reserve) = without_reserve();
    let _held = try_room(&budget, tenant(1), 90).unwrap();
    let (mut first, mut second) = (budget.room(tenant(1), PART), budget.room(tenant(1), PART));
    let mut waits = Box::pin(first.grow(150));
    assert!(waits.as_mut().now_or_never().is_none());
    assert!(second.grow(51).now_or_never().unwrap().is_err(), "201 bytes would wait");
    assert!(second.grow(50).now_or_never().is_none(), "it waited, and left");
    drop(waits);
    assert!(second.grow(200).now_or_never().is_none());
    assert_eq!(budget.0.state().waiting_bytes, 0);
}

#[test]
fn a_part_larger_than_the_reserve_takes_what_it_has_beyond_before_its_first_byte_and_no_more_in_all() {
    let budget = ByteBudget::new(140, PART, 200);
    let mut large = budget.room(tenant(1), 3 * PART);
    large.grow(1).now_or_never().unwrap().unwrap();
    assert_eq!(budget.used_bytes(), 40, "two parts beyond the reserve");
    large.grow(39).now_or_never().unwrap().unwrap();
    assert_eq!(budget.used_bytes(), 40, "that room is used first");
    // Others take the rest of the pool: what is left of the part fits into the reserve.
    let mut other = budget.room(tenant(2), PART);
    other.grow(60).now_or_never().unwrap().unwrap();
    large.grow(PART).now_or_never().expect("it takes the reserve").unwrap();
    assert_eq!(budget.used_bytes(), 100);
    assert!(budget.room(tenant(3), PART).grow(16).now_or_never().is_none(), "the reserve is taken");
    drop((large, other));
    assert_eq!(budget.used_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_part_that_is_too_large_for_now_waits_a_while_and_one_that_always_will_be_is_refused_at_once() {
    let budget = ByteBudget::new(140, PART, 200);
    let refused = budget.room(tenant(1), PART + 91).grow(1).now_or_never();
    assert_eq!(refused, Some(Err(NoRoom::PartTooLarge)), "a tenant alone gets three quarters of 120");
    let held = try_room(&budget, tenant(2), 60).unwrap();
    let mut large = budget.room(tenant(1), PART + 90);
    assert_eq!(large.grow(1).await, Err(NoRoom::TooManyWait));
    assert_eq!(budget.0.state().waiting_bytes, 0);
    let (grown, ()) = tokio::join!(large.grow(1), async { drop(held) });
    assert_eq!(grown, Ok(()), "it was only too large for then");
    assert_eq!(budget.used_bytes(), 90);
}
