//! In-process notifications that an event of a tenant was committed. They are only hints: readers find events
//! of other processes, and events whose COMMIT got no response, by polling. NOTIFY is not used, because in
//! request transactions it would serialize the commits of the whole cluster.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::sync::Notify;

use crate::domain::ids::TenantId;

/// The listeners per tenant. Cheap to clone.
#[derive(Clone, Default)]
pub struct EventHints(Arc<Mutex<HashMap<TenantId, Weak<Notify>>>>);

impl EventHints {
    /// Returns a `Notify` that is notified of each commit of this tenant's events, for as long as it is held.
    pub fn listen(&self, tenant: TenantId) -> Arc<Notify> {
        let mut listeners = self.listeners();
        if let Some(listener) = listeners.get(&tenant).and_then(Weak::upgrade) {
            return listener;
        }
        // Remove listeners that have been dropped.
        listeners.retain(|_, listener| listener.strong_count() > 0);
        let listener = Arc::new(Notify::new());
        listeners.insert(tenant, Arc::downgrade(&listener));
        listener
    }

    /// Notifies listeners that an event of this tenant was committed.
    pub(super) fn notify(&self, tenant: TenantId) {
        if let Some(listener) = self.listeners().get(&tenant).and_then(Weak::upgrade) {
            listener.notify_one();
        }
    }

    fn listeners(&self) -> MutexGuard<'_, HashMap<TenantId, Weak<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
