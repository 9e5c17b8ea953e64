//! Remembers what is logged as an error, by one test and no other.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use tracing::{Event, Level, Subscriber, field::{Field, Visit}};
use tracing_subscriber::{Layer, Registry, layer::{Context, SubscriberExt}};

/// The errors of one test. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recorded(Arc<Mutex<Vec<String>>>);

impl Recorded {
    /// From now on this thread's log is recorded here. Each test has threads of its own.
    pub(crate) fn record_this_thread(&self) {
        let subscriber = Registry::default().with(self.clone());
        // Kept until the thread ends.
        std::mem::forget(tracing::subscriber::set_default(subscriber));
    }

    pub(crate) fn errors(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl<S: Subscriber> Layer<S> for Recorded {
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
