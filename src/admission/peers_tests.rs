//! Tests of the limits of connections.

use futures::FutureExt;

use super::*;
use crate::domain::ids::TenantId;

fn peers(connections_max: usize, per_address_max: usize) -> Arc<Peers> {
    let trusted = vec!["192.0.2.0/24".parse().unwrap()];
    Peers::new(PeerLimits { connections_max, per_address_max, trusted, shares: None })
}

fn admit(peers: &Arc<Peers>, address: &str) -> Option<PeerConnection> {
    let admitted = peers.admit(address.parse().unwrap(), &CancellationToken::new()).now_or_never();
    admitted.expect("a connection waits for room")
}

#[tokio::test(start_paused = true)]
async fn full_port_closes_the_oldest_unknown_peer() {
    let peers = peers(3, 3);
    let known = admit(&peers, "10.0.0.1").unwrap();
    known.peer().mark_known();
    let mut strangers = Vec::new();
    for address in ["10.0.0.2", "10.0.0.3"] {
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        strangers.push(admit(&peers, address).unwrap());
    }
    // A request of an unknown peer does not protect it.
    let _request = strangers[0].peer().start_request();
    let _new = admit(&peers, "10.0.0.4").unwrap();
    assert!(strangers[0].close().is_cancelled());
    assert!(!strangers[1].close().is_cancelled() && !known.close().is_cancelled());
    assert_eq!(peers.status(), PeersStatus { open: 3, closed_for_room: 1, ..PeersStatus::default() });
}

#[tokio::test(start_paused = true)]
async fn full_port_closes_the_longest_idle_peer_or_waits() {
    let peers = peers(2, 2);
    let connections = ["10.0.0.1", "10.0.0.2"].map(|address| admit(&peers, address).unwrap());
    let busy = connections.each_ref().map(|connection| {
        connection.peer().mark_known();
        connection.peer().start_request()
    });
    let close = CancellationToken::new();
    let mut waits = Box::pin(peers.admit("10.0.0.3".parse().unwrap(), &close));
    assert!(waits.as_mut().now_or_never().is_none(), "both have requests");
    let [first, second] = busy;
    drop(second);
    tokio::time::advance(std::time::Duration::from_secs(1)).await;
    drop(first);
    let admitted = admit(&peers, "10.0.0.4");
    assert!(admitted.is_some() && connections[1].close().is_cancelled(), "it was idle for longer");
    drop(connections);
    assert!(waits.await.is_some());
}

#[test]
fn port_full_of_busy_peers_takes_from_the_largest_address() {
    let peers = peers(4, 4);
    let admit_busy = |address| {
        let connection = admit(&peers, address)?;
        connection.peer().mark_known();
        let request = connection.peer().start_request();
        Some((connection, request))
    };
    let proxied = admit_busy("192.0.2.7").unwrap();
    let crowd = [(); 3].map(|()| admit_busy("10.0.0.1").unwrap());
    assert!(admit_busy("10.0.0.1").is_none(), "refused, so later ones do not wait");
    let _operator = admit_busy("10.0.0.2").unwrap();
    assert!(crowd[0].0.close().is_cancelled() && !crowd[1].0.close().is_cancelled());
    assert!(!proxied.0.close().is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn address_at_its_limit_displaces_only_itself() {
    let peers = peers(10, 2);
    let other = admit(&peers, "10.0.0.9").unwrap();
    let first = admit(&peers, "10.0.0.1").unwrap();
    let second = admit(&peers, "10.0.0.1").unwrap();
    let third = admit(&peers, "10.0.0.1").unwrap();
    assert!(first.close().is_cancelled() && !other.close().is_cancelled());
    let requests = [&second, &third].map(|connection| {
        connection.peer().mark_known();
        connection.peer().start_request()
    });
    assert!(admit(&peers, "10.0.0.1").is_none(), "all of its connections are in use");
    assert_eq!(peers.status().refused, 1);
    drop(requests);
    let proxied: Vec<_> = (0..5).map(|_| admit(&peers, "192.0.2.7").unwrap()).collect();
    assert!(proxied.iter().all(|connection| !connection.close().is_cancelled()));
}

#[test]
fn counts_of_addresses_end_with_their_connections() {
    let peers = peers(3, 2);
    let open: Vec<_> =
        [1, 1, 1, 2, 3].map(|number| admit(&peers, &format!("10.0.0.{number}")).unwrap()).into();
    let count = |number: u8| peers.state().count_of(format!("10.0.0.{number}").parse().unwrap());
    assert_eq!([1, 2, 3].map(count), [1, 1, 1], "two were closed");
    drop(open);
    assert!(peers.state().of_address.is_empty());
}

/// A port with shares. A part of its connections is reserved.
fn shared(connections_max: usize, reserved: usize) -> Arc<Peers> {
    let trusted = vec!["192.0.2.0/24".parse().unwrap()];
    let shares = Some(ShareLimits::slots(connections_max).with_reserve(reserved));
    Peers::new(PeerLimits { connections_max, per_address_max: connections_max, trusted, shares })
}

fn tenant(number: u128) -> Holder {
    Holder::of_tenant(TenantId::from_uuid(uuid::Uuid::from_u128(number)))
}

/// Opens a connection from an address of its own, with a request of this holder.
fn claim(
    peers: &Arc<Peers>,
    number: u8,
    holder: Holder,
) -> (PeerConnection, PeerRequest, Result<(), Exhausted>) {
    let connection = admit(peers, &format!("10.0.0.{number}")).unwrap();
    let request = connection.peer().start_request();
    let claimed = connection.peer().claim(holder);
    (connection, request, claimed)
}

#[test]
fn busy_tenant_with_many_addresses_gets_its_share_only() {
    let peers = shared(12, 2);
    let crowd: Vec<_> = (0..10).map(|number| claim(&peers, number, tenant(1))).collect();
    let claimed = crowd.iter().filter(|(_, _, claimed)| claimed.is_ok()).count();
    assert_eq!(claimed, 8, "three quarters of what is not reserved");
    let (refused, _, reason) = &crowd[9];
    assert_eq!(*reason, Err(Exhausted::Tenant));
    assert!(!refused.peer().is_known() && crowd[0].0.peer().is_known());
    // Another request on the same connection does not count again.
    assert!(refused.peer().claim(tenant(1)).is_err());
    assert_eq!(peers.status().beyond_share, 2);
    // Connections of unknown peers make room for others.
    let others = [claim(&peers, 20, tenant(2)), claim(&peers, 21, Holder::PLATFORM)];
    assert!(others.iter().all(|(_, _, claimed)| claimed.is_ok()));
    let _stranger = admit(&peers, "10.0.0.22").unwrap();
    assert!(crowd[8].0.close().is_cancelled());
    assert!(crowd[..8].iter().all(|(connection, _, _)| !connection.close().is_cancelled()));
    drop(crowd);
    assert_eq!(peers.share_status().in_use, 2);
}

#[test]
fn idle_connection_of_a_tenant_makes_room_in_its_share() {
    let peers = shared(12, 2);
    let mut crowd: Vec<_> = (0..8).map(|number| Some(claim(&peers, number, tenant(1)))).collect();
    let (idle, request, _) = crowd[3].take().unwrap();
    drop(request);
    let ninth = claim(&peers, 9, tenant(1));
    assert_eq!(ninth.2, Ok(()));
    assert!(idle.close().is_cancelled());
    // A request that was sent before the connection was closed.
    assert_eq!(idle.peer().claim(tenant(1)), Ok(()));
    drop(idle);
    assert_eq!((peers.status().beyond_share, peers.share_status().in_use), (1, 8));
}

#[test]
fn new_tenant_takes_a_connection_of_the_largest() {
    let peers = shared(4, 2);
    let large = [claim(&peers, 1, tenant(1)), claim(&peers, 2, tenant(1))];
    assert!(large.iter().all(|(_, _, claimed)| claimed.is_ok()));
    let small = claim(&peers, 3, tenant(2));
    assert_eq!(small.2, Ok(()));
    assert!(large[0].0.close().is_cancelled() && !large[1].0.close().is_cancelled());
    let third = claim(&peers, 4, tenant(3));
    assert_eq!(third.2, Err(Exhausted::Process), "nobody has more");
    let operator = claim(&peers, 5, Holder::PLATFORM);
    assert_eq!(operator.2, Ok(()));
}

#[test]
fn connection_of_a_proxy_belongs_to_no_tenant() {
    let peers = shared(8, 2);
    let proxied: Vec<_> = (0..3).map(|_| admit(&peers, "192.0.2.7").unwrap()).collect();
    for connection in &proxied {
        assert_eq!(connection.peer().claim(tenant(1)), Ok(()));
        assert_eq!(connection.peer().claim(tenant(2)), Ok(()));
    }
    // What they leave is shared.
    let direct: Vec<_> = (0..3).map(|number| claim(&peers, number, tenant(1))).collect();
    let claimed = direct.iter().filter(|(_, _, claimed)| claimed.is_ok()).count();
    assert_eq!((claimed, peers.share_status().in_use), (3, 6));
}

#[test]
fn connection_of_a_new_tenant_becomes_one_of_the_tenant() {
    let peers = shared(12, 2);
    let (first, _request, claimed) = claim(&peers, 1, Holder::of_name(&"acme"));
    assert_eq!(claimed, Ok(()));
    assert_eq!(first.peer().claim(tenant(1)), Ok(()));
    // Requests of others on the same connection change nothing.
    assert_eq!(first.peer().claim(tenant(2)), Ok(()));
    let rest: Vec<_> = (2..10).map(|number| claim(&peers, number, tenant(1))).collect();
    assert_eq!(rest.iter().filter(|(_, _, claimed)| claimed.is_ok()).count(), 7);
}
