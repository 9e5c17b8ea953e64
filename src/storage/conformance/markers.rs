//! The owner marker: written as a whole, created once, and in no listing.

use bytes::Bytes;

use super::{
    super::{MarkerWrite, StorageErrorKind},
    fixture::{Fixture, assert_kind},
};

pub(super) async fn check_all(fixture: &Fixture) {
    let (store, prefix) = (&fixture.store, &format!("{}/owned", fixture.prefix));
    assert_eq!(store.read_marker(prefix).await.expect("read missing marker"), None);
    let [first, second] = [&b"first"[..], b"second"].map(Bytes::from_static);
    store.write_marker(prefix, first.clone(), MarkerWrite::Create).await.expect("create marker");
    assert_eq!(store.read_marker(prefix).await.expect("read marker"), Some(first.clone()));
    if store.capabilities().conditional_writes {
        let created = store.write_marker(prefix, second.clone(), MarkerWrite::Create).await;
        assert_kind(created, StorageErrorKind::AlreadyExists);
        assert_eq!(store.read_marker(prefix).await.expect("read marker"), Some(first));
    }
    store.write_marker(prefix, second.clone(), MarkerWrite::Replace).await.expect("replace marker");
    assert_eq!(store.read_marker(prefix).await.expect("read marker"), Some(second));
    let other = format!("{prefix}-other");
    assert_eq!(store.read_marker(&other).await.expect("read marker of another prefix"), None);
    let listed = store.list(prefix, None, 10).await.expect("list objects");
    assert_eq!((listed.objects, listed.is_last), (Vec::new(), true));
    assert_eq!(store.list_multiparts(prefix, None, 10).await.expect("list uploads").multiparts, []);
}
