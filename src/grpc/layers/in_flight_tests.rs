//! Tests of the limit of concurrent requests.

use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tonic_types::StatusExt;

use super::*;
use crate::grpc::{
    auth::access::TABLE,
    layers::testing::{call, request, status},
};

fn in_flight(change: impl FnOnce(&mut Config)) -> InFlight {
    let mut config = Config::defaults().unwrap();
    change(&mut config);
    InFlight::new(&config)
}

async fn endless(_: Request<Body>) -> Response<Body> {
    let frames = futures::stream::pending::<Result<Frame<Bytes>, Status>>();
    Response::new(Body::new(StreamBody::new(frames)))
}

/// A service whose callers are all verified.
async fn verified(request: Request<Body>) -> Response<Body> {
    match request.extensions().get::<RequestSlot>().map(|slot| slot.assign(Holder::of_name(&"acme"))) {
        Some(Err(error)) => status::status(&error, "").into_http(),
        Some(Ok(())) | None => endless(request).await,
    }
}

#[tokio::test]
async fn request_beyond_the_limit_is_refused_at_once() {
    let layer = in_flight(|config| config.server.requests_max = 1);
    let streaming = call(&layer, request("/any"), verified).await;
    let refused = call(&layer, request("/any"), verified).await;
    let status_of_refused = status(&refused).unwrap();
    assert_eq!(status_of_refused.code(), Code::ResourceExhausted);
    assert!(status_of_refused.get_details_retry_info().is_some());
    assert!(status(&call(&layer, request(CHECK), endless).await).is_none());

    drop(streaming);
    assert!(status(&call(&layer, request("/any"), verified).await).is_none());
}

#[tokio::test]
async fn every_verified_request_takes_a_slot() {
    let layer = in_flight(|_| {});
    for (path, access) in TABLE {
        let response = call(&layer, request(path), verified).await;
        let slots = usize::from(*access != Access::Anonymous);
        assert_eq!(layer.status().in_use, slots, "{path}");
        drop(response);
        assert_eq!(layer.status().in_use, 0, "{path}");
    }
}

#[tokio::test]
async fn requests_that_wait_for_keys_take_nothing_from_others() {
    let layer = in_flight(|config| {
        (config.server.requests_max, config.server.anonymous_requests_max) = (4, 4);
        config.server.operator_requests_reserved = 0;
    });
    let (sent, mut places) = tokio::sync::mpsc::unbounded_channel();
    let unverified = move |request: Request<Body>| {
        let slot = request.extensions().get::<RequestSlot>().unwrap().clone();
        let (sent, place) = (sent.clone(), slot.wait_unverified());
        let refused = place.as_ref().err().map(|error| status::status(error, "").into_http());
        place.into_iter().for_each(|place| sent.send(place).unwrap());
        async move { refused.unwrap_or_else(|| Response::new(Body::empty())) }
    };
    let mut refused = 0;
    for _ in 0..20 {
        refused += usize::from(status(&call(&layer, request("/any"), unverified.clone()).await).is_some());
    }
    let mut waiting = Vec::new();
    while let Ok(place) = places.try_recv() {
        waiting.push(place);
    }
    assert_eq!(waiting.len() + refused, 20);
    assert!((1..=3).contains(&waiting.len()), "an address has a share");
    assert_eq!(layer.status().in_use, 0);
    assert!(status(&call(&layer, request("/any"), verified).await).is_none());
}

#[tokio::test]
async fn proxies_wait_for_keys_apart_from_other_addresses() {
    let layer = in_flight(|config| {
        config.server.anonymous_requests_max = 4;
        config.server.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
    });
    let slot_of = |address: &str| RequestSlot {
        requests: Arc::clone(&layer.requests),
        unverified: layer.unverified.clone(),
        address: address.parse().unwrap(),
        held: Arc::default(),
    };
    let wait_all = |address: &str| -> Vec<Slot> {
        std::iter::from_fn(|| slot_of(address).wait_unverified().ok()).collect()
    };
    let proxied = wait_all("10.0.0.1");
    assert_eq!(proxied.len(), 4, "a proxy has no share");
    assert_eq!(wait_all("192.0.2.1").len(), 3, "an address has one, and nothing less because of proxies");
    drop(proxied);
    assert_eq!(wait_all("10.0.0.2").len(), 4);
}

#[tokio::test]
async fn silent_health_checks_do_not_refuse_others() {
    let layer = in_flight(|config| config.server.anonymous_requests_max = 8);
    let silent = |_| std::future::pending();
    let mut waiting = Vec::new();
    for _ in 0..20 {
        let layer = layer.clone();
        waiting.push(tokio::spawn(async move { call(&layer, request(CHECK), silent).await }));
        tokio::task::yield_now().await;
    }
    let answered = call(&layer, request(CHECK), |_| async { Response::new(Body::empty()) }).await;
    assert!(status(&answered).is_none());
    let ended = waiting.remove(0).await.unwrap();
    assert_eq!(status(&ended).unwrap().code(), Code::ResourceExhausted);
    waiting.iter().for_each(|call| call.abort());
}

#[tokio::test]
async fn ended_watch_gets_its_status_in_trailers() {
    const WATCH: &str = "/grpc.health.v1.Health/Watch";
    let layer = in_flight(|config| config.server.anonymous_requests_max = 1);
    let watch = call(&layer, request(WATCH), endless).await;
    let _other = call(&layer, request(WATCH), endless).await;
    let mut body = watch.into_body();
    let trailers = body.frame().await.unwrap().expect("no error, which would reset the stream");
    let ended = Status::from_header_map(&trailers.into_trailers().unwrap()).unwrap();
    assert_eq!(ended.code(), Code::ResourceExhausted);
    assert!(ended.get_details_retry_info().is_some());
    assert!(body.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn invalid_credentials_are_limited_per_address() {
    let layer = in_flight(|config| {
        config.rate_limits.address_refusals_per_second = 5;
        config.rate_limits.burst_seconds = 1;
    });
    let refuse = |_| async { Status::unauthenticated("").into_http() };
    for _ in 0..5 {
        assert_eq!(
            status(&call(&layer, request("/any"), refuse).await).unwrap().code(),
            Code::Unauthenticated
        );
    }
    let limited = status(&call(&layer, request("/any"), refuse).await).unwrap();
    assert_eq!(limited.code(), Code::ResourceExhausted);
    let info = limited.get_details_error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.metadata["scope"].as_str()), ("RATE_LIMITED", "address"));
    assert!(limited.get_details_retry_info().is_some());
    // A call with valid credentials from the same address is served.
    assert!(status(&call(&layer, request("/any"), endless).await).is_none());
}

#[tokio::test(start_paused = true)]
async fn expired_credentials_are_not_limited_per_address() {
    let layer = in_flight(|config| config.rate_limits.address_refusals_per_second = 1);
    let expired = |_| async {
        let mut response = Status::unauthenticated("").into_http();
        response.extensions_mut().insert(ExpiredCredentials);
        response
    };
    for _ in 0..100 {
        let refused = status(&call(&layer, request("/any"), expired).await).unwrap();
        assert_eq!(refused.code(), Code::Unauthenticated);
    }
}

#[tokio::test(start_paused = true)]
async fn requests_are_limited_per_address_except_of_proxies() {
    let limited = |config: &mut Config| {
        config.rate_limits.address_requests_per_second = 5;
        config.rate_limits.burst_seconds = 1;
    };
    let served = |layer: InFlight| async move {
        let mut count = 0;
        for _ in 0..20 {
            count += usize::from(status(&call(&layer, request("/any"), endless).await).is_none());
        }
        count
    };
    assert_eq!(served(in_flight(limited)).await, 5);
    let proxy = |config: &mut Config| {
        limited(config);
        config.server.trusted_proxies = vec!["0.0.0.0".parse().unwrap()];
    };
    assert_eq!(served(in_flight(proxy)).await, 20);
}
