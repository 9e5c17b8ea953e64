//! Tests of fair shares: the rule, the reserve, waiting and turns.

use std::iter::from_fn;

use futures::FutureExt;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::{admission::CallerKey, domain::ids::TenantId};

fn tenant(number: u128) -> TenantId {
    TenantId::from_uuid(Uuid::from_u128(number))
}

fn caller(of_tenant: u128, name: &str) -> Holder {
    Holder::new(tenant(of_tenant), CallerKey::of_user(name))
}

/// Takes as many single units as the holder can get.
fn take_all(shares: &Arc<Shares>, holder: Holder) -> Vec<Slot> {
    from_fn(|| shares.try_acquire(holder, 1).ok()).collect()
}

fn queue(shares: &Arc<Shares>, holder: Holder, units: usize) -> Waiter {
    match shares.acquire_or_queue(holder, units) {
        Acquisition::Waiting(waiter) => waiter,
        Acquisition::Granted(_) => panic!("granted at once"),
    }
}

fn is_granted(waiter: &mut Waiter) -> Option<Slot> {
    waiter.granted().now_or_never()
}

#[test]
fn new_tenant_and_new_caller_always_find_free_units() {
    let shares = Shares::new(ShareLimits::slots(256));
    let first = take_all(&shares, caller(1, "mallory"));
    assert_eq!(first.len(), 144, "three quarters of three quarters");
    assert_eq!(shares.try_acquire(caller(1, "mallory"), 1).unwrap_err(), Exhausted::Caller);
    assert_eq!(take_all(&shares, caller(1, "alice")).len(), 36, "a colleague");
    let second = take_all(&shares, caller(2, "zoe"));
    assert_eq!(second.len(), 63, "another tenant");
    drop(first);
    assert!(take_all(&shares, caller(2, "yan")).len() > 40, "the share grows again");
}

#[test]
fn callers_of_one_tenant_cannot_exceed_its_share() {
    let shares = Shares::new(ShareLimits::slots(100));
    let held: Vec<Vec<Slot>> =
        (0..50).map(|number| take_all(&shares, caller(1, &number.to_string()))).collect();
    let in_use: usize = held.iter().map(Vec::len).sum();
    assert_eq!(in_use, 75);
    assert_eq!(shares.try_acquire(caller(1, "one more"), 1).unwrap_err(), Exhausted::Tenant);
    assert!(shares.try_acquire(caller(2, "zoe"), 1).is_ok());
}

#[test]
fn reserve_is_for_operators_only() {
    let shares = Shares::new(ShareLimits::slots(10).with_reserve(3));
    let members: Vec<Vec<Slot>> = (1..20).map(|number| take_all(&shares, caller(number, "member"))).collect();
    assert_eq!(members.iter().map(Vec::len).sum::<usize>(), 7);
    assert_eq!(shares.try_acquire(caller(99, "member"), 1).unwrap_err(), Exhausted::Process);
    assert_eq!(take_all(&shares, Holder::PLATFORM).len(), 3);
}

#[test]
fn operator_is_served_before_work_of_the_service() {
    let shares = Shares::new(ShareLimits::slots(4).with_reserve(1));
    let mut working = take_all(&shares, Holder::SERVICE);
    assert_eq!(working.len(), 4);
    let mut checks: Vec<Waiter> = (0..8).map(|_| queue(&shares, Holder::SERVICE, 1)).collect();
    let mut operator = queue(&shares, Holder::PLATFORM, 1);
    drop(working.pop());
    let held = is_granted(&mut operator).expect("the operator waits behind no check");
    assert!(checks.iter_mut().all(|check| is_granted(check).is_none()));
    drop(held);
    assert!(is_granted(&mut checks[0]).is_some());
}

#[test]
fn used_reserve_takes_nothing_from_tenants() {
    let limits = ShareLimits::slots(16).with_reserve(2).with_reserve_used_first().with_lending(1);
    let shares = Shares::new(limits);
    let reader = take_all(&shares, caller(1, "reader"));
    assert_eq!(reader.len(), 12);
    let [check, _other_check] = [(); 2].map(|()| shares.try_acquire(Holder::PLATFORM, 1).unwrap());
    let _colleague = shares.try_acquire(caller(1, "owner"), 1).unwrap();
    let _other_tenant = shares.try_acquire(caller(2, "zoe"), 1).unwrap();
    drop(check);
    assert_eq!(shares.try_acquire(caller(3, "late"), 1).unwrap_err(), Exhausted::Process);
    assert!(shares.try_acquire(Holder::PLATFORM, 1).is_ok());
}

#[test]
fn few_units_can_be_used_by_one_caller() {
    for capacity in 1..=3 {
        let shares = Shares::new(ShareLimits::slots(capacity));
        assert_eq!(take_all(&shares, caller(1, "alice")).len(), capacity);
    }
    assert_eq!(
        Shares::new(ShareLimits::slots(0)).try_acquire(Holder::PLATFORM, 1).unwrap_err(),
        Exhausted::Process
    );
}

#[test]
fn one_caller_can_reach_the_tenant_maximum() {
    let slots = ShareLimits::slots(256);
    let shares = Shares::new(ShareLimits { tenant_max: 64, ..slots });
    let alice = take_all(&shares, caller(1, "alice"));
    assert_eq!(alice.len(), 64, "less than a caller's share of the pool");
    for name in ["alice", "bob"] {
        assert_eq!(shares.try_acquire(caller(1, name), 1).unwrap_err(), Exhausted::TenantMax);
    }
}

#[test]
fn tenant_half_leaves_others_half_of_the_pool() {
    let shares = Shares::new(ShareLimits::slots(1_024).with_reserve(16).with_tenant_half());
    let held: Vec<Vec<Slot>> =
        (0..50).map(|number| take_all(&shares, caller(1, &number.to_string()))).collect();
    assert_eq!(held.iter().map(Vec::len).sum::<usize>(), 504);
    let second = take_all(&shares, caller(2, "zoe"));
    assert!(second.len() > 200, "{}", second.len());
    drop((held, second));
    let first = take_all(&shares, caller(1, "flood"));
    assert!(shares.try_acquire(caller(1, "alice"), 1).is_ok(), "one of {} leaves room", first.len());
    let one = Shares::new(ShareLimits::slots(1).with_tenant_half());
    assert!(one.try_acquire(caller(1, "alice"), 1).is_ok());
}

#[test]
fn units_can_be_given_to_another_holder_within_its_share() {
    let shares = Shares::new(ShareLimits::slots(8).with_reserve(2));
    let address = Holder::of_address("192.0.2.1".parse().unwrap());
    let mut slot = shares.try_acquire(address, 1).unwrap();
    let members: Vec<Vec<Slot>> = (1..9).map(|number| take_all(&shares, caller(number, "member"))).collect();
    assert_eq!(shares.status().in_use, 6);
    assert_eq!(
        shares.try_acquire(address, 1).unwrap_err(),
        Exhausted::Process,
        "the reserve is for operators"
    );
    slot.reassign(caller(9, "member")).unwrap();
    let mut other = shares.try_acquire(Holder::PLATFORM, 1).unwrap();
    assert_eq!(other.reassign(caller(9, "member")).unwrap_err(), Exhausted::Process);
    assert_eq!(shares.status().in_use, 7);
    drop((slot, other, members));
    assert_eq!(shares.status().in_use, 0);
    assert!(shares.state().owners.is_empty());
}

#[test]
fn waiting_tenants_are_served_in_turn() {
    let shares = Shares::new(ShareLimits::slots(4));
    let held = take_all(&shares, Holder::PLATFORM);
    let mut many: Vec<Waiter> = (0..10).map(|_| queue(&shares, caller(1, "flood"), 1)).collect();
    let mut one = queue(&shares, caller(2, "zoe"), 1);
    let mut held = held.into_iter();
    drop(held.next());
    let first = is_granted(&mut many[0]).expect("in order of arrival");
    drop(held.next());
    let second = is_granted(&mut one).expect("the next turn is the other tenant's");
    assert!(is_granted(&mut many[1]).is_none());
    assert_eq!(shares.status().waiting, 9);
    drop((many, first, second, held));
    assert_eq!((shares.status().in_use, shares.status().waiting), (0, 0));
    assert!(shares.state().turns.is_empty() && shares.state().owners.is_empty());
}

#[test]
fn caller_at_its_share_does_not_block_its_colleagues() {
    let shares = Shares::new(ShareLimits::slots(16));
    let flood = take_all(&shares, caller(1, "flood"));
    let mut blocked = queue(&shares, caller(1, "flood"), 1);
    let others = take_all(&shares, Holder::PLATFORM);
    let mut colleague = queue(&shares, caller(1, "alice"), 1);
    drop(others);
    assert!(is_granted(&mut colleague).is_some());
    assert!(is_granted(&mut blocked).is_none());
    drop(flood);
    assert!(is_granted(&mut blocked).is_some());
}

#[test]
fn caller_that_holds_the_least_is_served_first() {
    let shares = Shares::new(ShareLimits::slots(8));
    let take_three = |name: &str| -> Vec<Slot> {
        (0..3).map(|_| shares.try_acquire(caller(1, name), 1).unwrap()).collect()
    };
    let (mut first, second) = (take_three("flood"), take_three("other"));
    let mut early = queue(&shares, caller(1, "flood"), 1);
    let mut late = queue(&shares, caller(1, "alice"), 1);
    drop(first.pop());
    let granted = is_granted(&mut late).expect("she holds nothing");
    assert!(is_granted(&mut early).is_none());
    drop(second);
    assert!(is_granted(&mut early).is_some());
    drop(granted);
}

#[test]
fn idle_units_are_lent_but_for_the_spare_ones() {
    let shares = Shares::new(ShareLimits::slots(16).with_reserve(2).with_lending(1));
    let lent = take_all(&shares, caller(1, "flood"));
    assert_eq!(lent.len(), 12, "one is left to other tenants, and one to its colleagues");
    assert_eq!(take_all(&shares, caller(1, "alice")).len(), 1, "a colleague");
    assert_eq!(take_all(&shares, caller(2, "zoe")).len(), 2, "another tenant, after the colleague");
    let held = shares.try_acquire(caller(1, "alice"), 1).unwrap();
    let other = shares.try_acquire(caller(2, "zoe"), 1).unwrap();
    assert_eq!(shares.try_acquire(caller(3, "kim"), 1).unwrap_err(), Exhausted::Process);
    assert_eq!(take_all(&shares, Holder::PLATFORM).len(), 2);
    drop((lent, held, other));
    assert_eq!(shares.status().in_use, 0);
}

#[test]
fn waiters_within_their_share_precede_borrowers() {
    let shares = Shares::new(ShareLimits::slots(16).with_reserve(2).with_lending(1));
    let mut lent = take_all(&shares, caller(1, "flood"));
    let mut borrower = queue(&shares, caller(1, "flood"), 1);
    let newcomer = take_all(&shares, caller(2, "zoe"));
    assert_eq!(newcomer.len(), 2, "the spare ones");
    let mut within = queue(&shares, caller(2, "zoe"), 1);
    drop(lent.pop());
    let third = is_granted(&mut within).expect("it has not used up its share");
    assert!(is_granted(&mut borrower).is_none());
    drop((newcomer, third));
    assert!(is_granted(&mut borrower).is_some(), "nobody else waits");
    drop(lent);
}

#[tokio::test(start_paused = true)]
async fn wait_ends_after_its_time() {
    let shares = Shares::new(ShareLimits::slots(1));
    let held = shares.try_acquire(caller(1, "alice"), 1).unwrap();
    let wait = Duration::from_secs(5);
    assert_eq!(shares.acquire(caller(2, "zoe"), 1, wait).await.unwrap_err(), Exhausted::Process);
    assert_eq!((shares.status().waiting, shares.status().refused_process), (0, 1));
    let (granted, ()) = tokio::join!(shares.acquire(caller(2, "zoe"), 1, wait), async { drop(held) });
    assert!(granted.is_ok());
}

proptest! {
    #[test]
    fn sums_are_right_after_any_operations(
        operations in proptest::collection::vec((0u8..4, 0u128..3, 0usize..3, 1usize..4), 1..60),
        lent_above in proptest::option::of(1usize..3),
    ) {
        let limits = ShareLimits { rounding: 3, lent_above, ..ShareLimits::weighted(12) }.with_reserve(2);
        let shares = Shares::new(limits);
        let (mut slots, mut waiters): (Vec<Slot>, Vec<Waiter>) = (Vec::new(), Vec::new());
        for (operation, of_tenant, which, units) in operations {
            let holder = caller(of_tenant, &which.to_string());
            match operation {
                0 => slots.extend(shares.try_acquire(holder, units).ok()),
                1 => match shares.acquire_or_queue(holder, units) {
                    Acquisition::Granted(slot) => slots.push(slot),
                    Acquisition::Waiting(waiter) => waiters.push(waiter),
                },
                2 if !slots.is_empty() => drop(slots.swap_remove(which % slots.len())),
                3 if !waiters.is_empty() => drop(waiters.swap_remove(which % waiters.len())),
                _ => {}
            }
            let mut still_waiting = Vec::new();
            for mut waiter in waiters {
                match is_granted(&mut waiter) {
                    Some(slot) => slots.push(slot),
                    None => still_waiting.push(waiter),
                }
            }
            waiters = still_waiting;
            let held: usize = slots.iter().map(|slot| slot.units).sum();
            prop_assert_eq!(shares.status().in_use, held);
            prop_assert_eq!(shares.status().waiting, waiters.len());
            prop_assert!(held <= 10, "the reserve is free");
        }
        drop((slots, waiters));
        prop_assert!(shares.state().owners.is_empty() && shares.state().turns.is_empty());
    }
}
