//! Tells whoever follows a tenant's events in this process that one was committed here. A hint and no more: events of other
//! replicas, and those whose COMMIT was never answered, are found by polling. There is no NOTIFY: in the transactions of
//! requests it would serialise the commits of the whole cluster.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::sync::Notify;

use crate::domain::ids::TenantId;

/// Who listens. Cheap to clone.
#[derive(Clone, Default)]
pub struct EventHints(Arc<Mutex<HashMap<TenantId, Weak<Notify>>>>);

impl EventHints {
    /// What wakes whoever follows this tenant; for as long as it is held.
    pub fn listen(&self, tenant: TenantId) -> Arc<Notify> {
        let mut listeners = self.listeners();
        if let Some(listener) = listeners.get(&tenant).and_then(Weak::upgrade) {
            return listener;
        }
        // Those that nobody holds any more make room.
        listeners.retain(|_, listener| listener.strong_count() > 0);
        let listener = Arc::new(Notify::new());
        listeners.insert(tenant, Arc::downgrade(&listener));
        listener
    }

    /// An event of this tenant was committed.
    pub(super) fn raise(&self, tenant: TenantId) {
        if let Some(listener) = self.listeners().get(&tenant).and_then(Weak::upgrade) {
            listener.notify_one();
        }
    }

    fn listeners(&self) -> MutexGuard<'_, HashMap<TenantId, Weak<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
