//! Tests of the message budget, with a paused clock.

use futures::{SinkExt, channel::mpsc};
use http_body_util::{BodyExt, StreamBody};
use proptest::prelude::*;
use tonic::Code;
use tonic_types::StatusExt;

use super::*;
use crate::{admission::CallerKey, domain::ids::TenantId};

const LARGE: usize = 64 * 1024;

/// A budget with space for one message of the largest size.
fn budget() -> MessageBudget {
    budget_of(1)
}

/// A budget with space for this number of messages of the largest size.
fn budget_of(messages: usize) -> MessageBudget {
    let limits = MessageLimits { file_message_bytes_max: LARGE, part_message_bytes_max: LARGE };
    MessageBudget::new(messages, limits, Duration::from_secs(60))
}

fn caller(tenant: u128, name: &str) -> Holder {
    Holder::new(TenantId::from_uuid(uuid::Uuid::from_u128(tenant)), CallerKey::of_user(name))
}

fn frame(flag: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![flag];
    bytes.extend_from_slice(&u32::try_from(length).unwrap().to_be_bytes());
    bytes.resize(PREFIX_BYTES + length, 7);
    bytes
}

fn message(length: usize) -> Vec<u8> {
    frame(0, length)
}

fn compressed(length: usize) -> Vec<u8> {
    frame(1, length)
}

type Sent = mpsc::Sender<Result<Frame<Bytes>, Status>>;

fn body(budget: &MessageBudget) -> (Sent, BudgetedBody) {
    body_of(budget, caller(1, "alice"))
}

fn body_of(budget: &MessageBudget, holder: Holder) -> (Sent, BudgetedBody) {
    let (sender, frames) = mpsc::channel(8);
    let rules = Rules {
        bytes_max: LARGE,
        decompressed_bytes_max: LARGE,
        arrival_max: budget.arrival_max,
        holder: Some(holder),
        call_id: "c-1".to_owned(),
    };
    (sender, BudgetedBody::new(Body::new(StreamBody::new(frames)), Arc::clone(&budget.space), rules))
}

async fn send(sender: &mut mpsc::Sender<Result<Frame<Bytes>, Status>>, bytes: &[u8]) {
    sender.send(Ok(Frame::data(Bytes::copy_from_slice(bytes)))).await.unwrap();
}

#[tokio::test]
async fn message_waits_for_space() {
    let budget = budget();
    let (mut first_sender, mut first) = body(&budget);
    let (mut second_sender, mut second) = body(&budget);
    let bytes = message(LARGE);

    send(&mut first_sender, &bytes[..100]).await;
    first.frame().await.unwrap().unwrap();
    send(&mut second_sender, &bytes[..100]).await;
    assert!(futures::poll!(second.frame()).is_pending());

    send(&mut first_sender, &bytes[100..]).await;
    first.frame().await.unwrap().unwrap();
    assert_eq!(second.frame().await.unwrap().unwrap().into_data().unwrap().len(), 100);
}

#[tokio::test(start_paused = true)]
async fn message_without_space_is_refused_with_retry_info() {
    let budget = budget();
    let (mut silent_sender, mut silent) = body(&budget);
    let (mut waiting_sender, mut waiting) = body(&budget);
    for sender in [&mut silent_sender, &mut waiting_sender] {
        send(sender, &message(LARGE)[..100]).await;
    }
    silent.frame().await.unwrap().unwrap();
    let refused = waiting.frame().await.unwrap().unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(refused.get_details_error_info().unwrap().reason, "OVERLOADED");
    assert!(refused.get_details_retry_info().is_some());
}

#[tokio::test]
async fn small_message_needs_no_space() {
    let budget = budget();
    let (mut first_sender, mut first) = body(&budget);
    send(&mut first_sender, &message(LARGE)[..100]).await;
    first.frame().await.unwrap().unwrap();
    let (mut second_sender, mut second) = body(&budget);
    send(&mut second_sender, &message(SMALL_BYTES)).await;
    second.frame().await.unwrap().unwrap();
}

#[tokio::test]
async fn compressed_message_takes_its_decompressed_size() {
    let budget = budget();
    let (mut sender, mut body) = body(&budget);
    send(&mut sender, &compressed(LARGE / EXPANSION_MAX + 1)).await;
    body.frame().await.unwrap().unwrap();
    // It is complete, but not decoded yet.
    assert_eq!(budget.status().in_use, LARGE / UNIT_BYTES);
    drop(sender);
    assert!(body.frame().await.is_none());
    assert_eq!(budget.status().in_use, 0);
}

#[tokio::test]
async fn too_large_message_is_refused_by_its_length() {
    let budget = budget();
    let (mut sender, mut body) = body(&budget);
    send(&mut sender, &message(LARGE + 1)[..100]).await;
    let refused = body.frame().await.unwrap().unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let info = refused.get_details_error_info().unwrap();
    assert_eq!(info.reason, "MESSAGE_TOO_LARGE");
    assert_eq!(
        (info.metadata["size_bytes"].as_str(), info.metadata["limit_bytes"].as_str()),
        ("65537", "65536")
    );
    assert_eq!(budget.status().in_use, 0);
}

#[tokio::test]
async fn dropped_body_releases_its_space() {
    let budget = budget();
    let (mut sender, mut body) = body(&budget);
    send(&mut sender, &message(LARGE)[..100]).await;
    body.frame().await.unwrap().unwrap();
    assert_eq!(budget.status().in_use, LARGE / UNIT_BYTES);
    drop(body);
    assert_eq!(budget.status().in_use, 0);
}

#[tokio::test(start_paused = true)]
async fn stalled_messages_of_a_caller_leave_space_to_others() {
    let budget = budget_of(64);
    let mut stalled = Vec::new();
    for _ in 0..64 {
        let (mut sender, mut body) = body_of(&budget, caller(1, "mallory"));
        send(&mut sender, &message(LARGE)[..5]).await;
        let started = futures::poll!(body.frame()).is_ready();
        stalled.push((sender, body, started));
    }
    let holding = stalled.iter().filter(|(_, _, started)| *started).count();
    assert!((30..40).contains(&holding), "{holding} of 64");
    for other in [caller(1, "alice"), caller(2, "zoe")] {
        let (mut sender, mut body) = body_of(&budget, other);
        send(&mut sender, &message(LARGE)).await;
        body.frame().await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn incomplete_message_is_ended_when_others_wait_for_its_space() {
    let budget = budget();
    let (mut slow_sender, mut slow) = body(&budget);
    let (mut other_sender, mut other) = body(&budget);
    send(&mut slow_sender, &message(LARGE)[..5]).await;
    slow.frame().await.unwrap().unwrap();
    let much_later = Duration::from_secs(3_600);
    assert!(timeout(much_later, slow.frame()).await.is_err(), "nobody waits");
    send(&mut other_sender, &message(LARGE)[..5]).await;
    let (late, waited) = tokio::join!(
        async {
            let ended = timeout(much_later, slow.frame()).await.expect("ended while another waits");
            let late = ended.unwrap().unwrap_err();
            drop(slow);
            late
        },
        other.frame()
    );
    assert_eq!(late.code(), Code::DeadlineExceeded);
    assert!(late.message().contains("within 60 s"), "{late}");
    assert!(waited.unwrap().is_ok());
}

proptest! {
    #[test]
    fn framing_is_followed_across_any_cut(
        lengths in proptest::collection::vec(0usize..40, 1..6),
        cut in 1usize..20,
    ) {
        let bytes: Vec<u8> = lengths.iter().flat_map(|length| message(*length)).collect();
        let mut framing = Framing::default();
        let longest = bytes.chunks(cut).map(|piece| framing.scan(piece).length_max).max();
        prop_assert_eq!(longest, lengths.iter().max().copied());
        prop_assert_eq!((framing.missing, framing.prefix_length), (0, 0));
    }
}
