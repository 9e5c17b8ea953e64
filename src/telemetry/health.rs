//! The health of this process. Components report their state; the gRPC health service and `/readyz` read it.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::watch;

/// A component that the service depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    Database,
    /// The object store.
    Storage,
    /// The clock of this machine, compared with the database's.
    Clock,
    /// The owner of the stores: whether they belong to this database.
    StoreOwner,
}

impl Component {
    /// Returns the name for responses and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::Storage => "storage",
            Self::Clock => "clock",
            Self::StoreOwner => "store_owner",
        }
    }
}

/// The state of a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ComponentState {
    /// The component is available.
    Up,
    /// The component needs attention, for this reason, but the process can serve requests.
    Degraded(&'static str),
    /// The component is unavailable, for this reason. The reason is a constant text, because errors of an
    /// adapter may contain addresses or secrets, and `/readyz` is readable without authentication.
    Down(&'static str),
}

/// The state of all components at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthState {
    /// The state of each component.
    pub components: BTreeMap<Component, ComponentState>,
    /// Whether the process is shutting down and accepts no new work.
    pub is_draining: bool,
}

impl HealthState {
    /// Returns whether the process can serve new requests.
    pub fn is_ready(&self) -> bool {
        !self.is_draining && !self.components.values().any(|state| matches!(state, ComponentState::Down(_)))
    }
}

/// The shared health of the process. Clones share the state.
#[derive(Debug, Clone)]
pub struct Health {
    state: Arc<watch::Sender<HealthState>>,
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Health {
    /// Creates the health state, with no component up until it is first checked.
    pub fn new() -> Self {
        let unknown = ComponentState::Down("not checked yet");
        let components = [
            (Component::Database, unknown),
            (Component::Storage, unknown),
            (Component::StoreOwner, ComponentState::Degraded("not checked yet")),
        ];
        let state = HealthState { components: components.into(), is_draining: false };
        Self { state: Arc::new(watch::Sender::new(state)) }
    }

    /// Marks a component as available.
    pub fn mark_up(&self, component: Component) {
        self.set(component, ComponentState::Up);
    }

    /// Marks a component as available but in need of attention, with the reason.
    pub fn mark_degraded(&self, component: Component, reason: &'static str) {
        self.set(component, ComponentState::Degraded(reason));
    }

    /// Marks a component as unavailable, with the reason.
    pub fn mark_down(&self, component: Component, reason: &'static str) {
        self.set(component, ComponentState::Down(reason));
    }

    /// Marks the process as shutting down. This cannot be reverted.
    pub fn start_draining(&self) {
        self.state.send_if_modified(|state| !std::mem::replace(&mut state.is_draining, true));
    }

    /// Returns the current state.
    pub fn state(&self) -> HealthState {
        self.state.borrow().clone()
    }

    /// Subscribes to the current state and all changes.
    pub fn subscribe(&self) -> watch::Receiver<HealthState> {
        self.state.subscribe()
    }

    /// Waits until the process can serve requests.
    pub async fn wait_until_ready(&self) {
        // Ends with an error only if there is no sender, and this is one.
        let _ready = self.subscribe().wait_for(HealthState::is_ready).await.is_ok();
    }

    fn set(&self, component: Component, new: ComponentState) {
        let changed =
            self.state.send_if_modified(|state| state.components.insert(component, new) != Some(new));
        match new {
            ComponentState::Up if changed => tracing::info!(component = component.name(), "component is up"),
            ComponentState::Down(reason) if changed => {
                tracing::warn!(component = component.name(), reason, "component is down");
            }
            ComponentState::Degraded(reason) if changed => {
                tracing::warn!(component = component.name(), reason, "component is degraded");
            }
            ComponentState::Up | ComponentState::Degraded(_) | ComponentState::Down(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_is_ready_while_all_components_are_up() {
        let health = Health::new();
        assert!(!health.state().is_ready());
        health.mark_up(Component::Database);
        assert!(!health.state().is_ready());
        health.mark_up(Component::Storage);
        health.mark_degraded(Component::Clock, "differs");
        assert!(health.state().is_ready());
        health.mark_degraded(Component::StoreOwner, "the store belongs to another database");
        assert!(health.state().is_ready(), "reads are possible");
        health.mark_down(Component::Database, "connections are refused");
        assert!(!health.state().is_ready());
        health.mark_up(Component::Database);
        health.start_draining();
        assert!(!health.state().is_ready());
    }

    #[tokio::test]
    async fn wait_ends_when_all_components_are_up() {
        let health = Health::new();
        let mut waiting = std::pin::pin!(health.wait_until_ready());
        assert!(futures::poll!(&mut waiting).is_pending());
        health.mark_up(Component::Database);
        assert!(futures::poll!(&mut waiting).is_pending());
        health.mark_up(Component::Storage);
        waiting.await;
    }

    #[test]
    fn subscribers_are_notified_of_changes_only() {
        let health = Health::new();
        let mut watcher = health.subscribe();
        health.mark_up(Component::Storage);
        assert!(watcher.has_changed().unwrap());
        watcher.mark_unchanged();
        health.mark_up(Component::Storage);
        assert!(!watcher.has_changed().unwrap());
        health.start_draining();
        assert!(watcher.borrow_and_update().is_draining);
    }
}
