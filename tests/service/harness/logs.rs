//! Remembers what is logged as an error, by one test and no other.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use tracing::{
    Dispatch, Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer, Registry,
    layer::{Context, SubscriberExt},
};

/// The errors of one test. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    errors: Errors,
    /// One for all threads of the test, because spans move between them.
    dispatch: Dispatch,
}

#[derive(Debug, Clone, Default)]
struct Errors(Arc<Mutex<Vec<String>>>);

impl Default for Recorded {
    fn default() -> Self {
        let errors = Errors::default();
        let dispatch = Dispatch::new(Registry::default().with(errors.clone()));
        Self { errors, dispatch }
    }
}

impl Recorded {
    /// From now on this thread's log is recorded here. Each test has threads of its own.
    pub(crate) fn record_this_thread(&self) {
        // Kept until the thread ends.
        std::mem::forget(tracing::dispatcher::set_default(&self.dispatch));
    }

    pub(crate) fn errors(&self) -> Vec<String> {
        self.errors.0.lock().unwrap().clone()
    }
}

impl<S: Subscriber> Layer<S> for Errors {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() == Level::ERROR && event.metadata().target().starts_with("strongroom") {
            let mut text = Text(String::new());
            event.record(&mut text);
            self.0.lock().unwrap().push(text.0);
        }
    }
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.push_str(&format!("{field}={value:?} "));
    }
}
