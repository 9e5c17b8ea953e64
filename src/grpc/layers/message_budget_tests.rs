//! Tests of the message budget, with a paused clock.

use futures::{SinkExt, channel::mpsc};
use http_body_util::{BodyExt, StreamBody};
use proptest::prelude::*;
use tonic::Code;
use tonic_types::StatusExt;

use super::*;
use crate::{
    admission::CallerKey,
    app::uploads::Arrived,
    domain::ids::TenantId,
    grpc::layers::{observed_body::ObservedBody, testing},
};

const LARGE: usize = 64 * 1024;

const ARRIVAL: ArrivalLimits =
    ArrivalLimits { window: Duration::from_secs(60), rate_min_bytes_per_second: 100 };

/// A budget with space for one message of the largest size.
fn budget() -> MessageBudget {
    budget_of(1)
}

/// A budget with space for this number of messages of the largest size.
fn budget_of(messages: usize) -> MessageBudget {
    let limits = MessageLimits { file_message_bytes_max: LARGE, part_message_bytes_max: LARGE };
    MessageBudget::new(messages, limits, ARRIVAL)
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

type BudgetedBody = ObservedBody<BudgetedMessages>;

fn body(budget: &MessageBudget) -> (Sent, BudgetedBody) {
    body_of(budget, caller(1, "alice"))
}

fn body_of(budget: &MessageBudget, holder: Holder) -> (Sent, BudgetedBody) {
    let (sender, frames) = mpsc::channel(8);
    let rules = Rules {
        bytes_max: LARGE,
        decompressed_bytes_max: LARGE,
        arrival: budget.arrival,
        holder: Some(holder),
        call_id: "c-1".to_owned(),
    };
    let observer = BudgetedMessages::new(Arc::clone(&budget.space), rules);
    (sender, ObservedBody { body: Body::new(StreamBody::new(frames)), observer })
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
        // Not all of it: a message that arrives as a whole needs no space.
        send(&mut sender, &message(LARGE)[..5]).await;
        assert!(futures::poll!(body.frame()).is_ready());
    }
}

#[tokio::test(start_paused = true)]
async fn messages_of_many_tenants_leave_space_to_operators() {
    let budget = budget_of(8);
    let mut stalled = Vec::new();
    for tenant in 0..16 {
        let (mut sender, mut body) = body_of(&budget, caller(tenant, "mallory"));
        send(&mut sender, &message(LARGE)[..5]).await;
        let started = futures::poll!(body.frame()).is_ready();
        stalled.push((sender, body, started));
    }
    assert!(stalled.iter().any(|(_, _, started)| !started), "no space is left to tenants");
    let (mut sender, mut operator) = body_of(&budget, Holder::PLATFORM);
    // Not all of it: a message that arrives as a whole needs no space.
    send(&mut sender, &message(LARGE)[..5]).await;
    assert!(futures::poll!(operator.frame()).is_ready());
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
    assert!(late.message().contains("arrived at 0 bytes per second for"), "{late}");
    assert!(waited.unwrap().is_ok());
}

/// Sends pieces of a large message while another message waits for its space. Returns the error that ends it, if
/// there is one.
async fn send_pieces(piece_bytes: usize, interval: Duration) -> Result<(), Status> {
    let budget = budget();
    let (mut sender, mut slow) = body(&budget);
    let (mut other_sender, mut other) = body_of(&budget, caller(2, "zoe"));
    let bytes = message(LARGE);
    let (prefix, rest) = bytes.split_at(PREFIX_BYTES);
    send(&mut sender, prefix).await;
    slow.frame().await.unwrap()?;
    send(&mut other_sender, prefix).await;
    // It is not polled again, so its wait does not end.
    assert!(futures::poll!(other.frame()).is_pending());
    for piece in rest.chunks(piece_bytes) {
        if let Ok(ended) = timeout(interval, slow.frame()).await {
            return Err(ended.unwrap().unwrap_err());
        }
        send(&mut sender, piece).await;
        slow.frame().await.unwrap()?;
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn slow_but_steady_message_keeps_its_space() {
    let start = Instant::now();
    // 170 bytes per second.
    send_pieces(1_190, Duration::from_secs(7)).await.unwrap();
    assert!(start.elapsed() > 5 * ARRIVAL.window, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn message_below_the_minimum_rate_ends_with_both_rates() {
    let start = Instant::now();
    let ended = send_pieces(350, Duration::from_secs(7)).await.unwrap_err();
    assert_eq!(ended.code(), Code::DeadlineExceeded);
    // Eight pieces.
    let expected = "message arrived at 46 bytes per second for 60 s; the minimum is 100 bytes per second";
    assert!(ended.message().starts_with(expected), "{ended}");
    assert_eq!(start.elapsed(), ARRIVAL.window);
}

#[tokio::test]
async fn bytes_of_a_stream_are_counted_as_they_arrive() {
    let budget = budget();
    for (path, is_counted) in
        [("/strongroom.v1.FileService/UploadFile", true), ("/strongroom.v1.FileService/GetFile", false)]
    {
        let (mut sender, frames) = mpsc::channel(8);
        let mut request = testing::request(path).map(|_| Body::new(StreamBody::new(frames)));
        request.extensions_mut().insert(caller(1, "alice"));
        // A whole message, and the beginning of the next one.
        let bytes = [message(100), message(LARGE)[..1_005].to_vec()].concat();
        send(&mut sender, &bytes).await;
        let respond = move |request: Request<Body>| async move {
            let (head, mut body) = request.into_parts();
            body.frame().await.unwrap().unwrap();
            let arrivals = head.extensions.get::<Arrivals>().cloned();
            let arrived = arrivals.map(|arrivals| arrivals.arrived());
            let expected = Arrived { total_bytes: 1_110, incomplete_bytes: 1_000 };
            assert_eq!(arrived, is_counted.then_some(expected));
            Response::new(Body::empty())
        };
        testing::call(&budget, request, respond).await;
    }
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
