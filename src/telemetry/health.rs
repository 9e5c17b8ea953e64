//! Whether this process can do its work, told by whoever knows and read by the gRPC health service and
//! `/readyz`.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::watch;

/// What the service cannot work without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// PostgreSQL.
    Database,
    /// The store of bytes.
    Storage,
}

impl Component {
    /// Its name in answers and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::Storage => "storage",
        }
    }
}

/// How a component is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ComponentState {
    /// It answers.
    Up,
    /// It does not, and this is why. A fixed text: what an adapter says may hold addresses or worse, and
    /// `/readyz` is read by anyone who reaches the port.
    Down(&'static str),
}

/// The state of all components at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthState {
    /// Each component and how it is.
    pub components: BTreeMap<Component, ComponentState>,
    /// Whether the process is on its way out and takes no new work.
    pub draining: bool,
}

impl HealthState {
    /// Whether new requests are welcome.
    pub fn is_ready(&self) -> bool {
        !self.draining && self.components.values().all(|state| *state == ComponentState::Up)
    }
}

/// Shared health; clones see the same state.
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
    /// Nothing is up until someone has looked.
    pub fn new() -> Self {
        let unknown = ComponentState::Down("not checked yet");
        let components = [Component::Database, Component::Storage].map(|component| (component, unknown));
        let state = HealthState { components: components.into(), draining: false };
        Self { state: Arc::new(watch::Sender::new(state)) }
    }

    /// Says that a component answers.
    pub fn set_up(&self, component: Component) {
        self.set(component, ComponentState::Up);
    }

    /// Says that a component does not answer, and why.
    pub fn set_down(&self, component: Component, why: &'static str) {
        self.set(component, ComponentState::Down(why));
    }

    /// Says that the process is on its way out. There is no way back.
    pub fn drain(&self) {
        self.state.send_if_modified(|state| !std::mem::replace(&mut state.draining, true));
    }

    /// The state now.
    pub fn state(&self) -> HealthState {
        self.state.borrow().clone()
    }

    /// The state now and whenever it changes.
    pub fn subscribe(&self) -> watch::Receiver<HealthState> {
        self.state.subscribe()
    }

    fn set(&self, component: Component, new: ComponentState) {
        let changed =
            self.state.send_if_modified(|state| state.components.insert(component, new) != Some(new));
        match new {
            ComponentState::Up if changed => tracing::info!(component = component.name(), "component is up"),
            ComponentState::Down(why) if changed => {
                tracing::warn!(component = component.name(), why, "component is down");
            }
            ComponentState::Up | ComponentState::Down(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_ready_when_everything_is_up_and_until_it_drains() {
        let health = Health::new();
        assert!(!health.state().is_ready());
        health.set_up(Component::Database);
        assert!(!health.state().is_ready());
        health.set_up(Component::Storage);
        assert!(health.state().is_ready());
        health.set_down(Component::Database, "connections are refused");
        assert!(!health.state().is_ready());
        health.set_up(Component::Database);
        health.drain();
        assert!(!health.state().is_ready());
    }

    #[test]
    fn watchers_hear_of_changes_and_of_nothing_else() {
        let health = Health::new();
        let mut watcher = health.subscribe();
        health.set_up(Component::Storage);
        assert!(watcher.has_changed().unwrap());
        watcher.mark_unchanged();
        health.set_up(Component::Storage);
        assert!(!watcher.has_changed().unwrap());
        health.drain();
        assert!(watcher.borrow_and_update().draining);
    }
}
