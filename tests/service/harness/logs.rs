//! Records the errors that one test logs, and the statements that its service sends to the database.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use tracing::{
    Dispatch, Event, Level, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id},
};
use tracing_subscriber::{
    Layer, Registry,
    layer::{Context, SubscriberExt},
};

/// The errors that one test has logged. Clones share the list.
#[derive(Debug, Clone)]
pub(crate) struct ErrorLog {
    errors: Errors,
    /// Shared by all threads of the test, because spans move between them.
    dispatch: Dispatch,
}

#[derive(Debug, Clone, Default)]
struct Errors(Arc<Mutex<Vec<String>>>, Statements);

/// The operations of the statements since the last call of [`take_statements`], in order.
#[derive(Debug, Clone, Default)]
struct Statements(Arc<Mutex<Vec<String>>>);

/// Returns the statements that this test has sent since the last call. Call it on the thread of the test.
pub(crate) fn take_statements() -> Vec<String> {
    tracing::dispatcher::get_default(|dispatch| {
        let Errors(_, statements) = dispatch.downcast_ref::<Errors>().expect("the thread of a test");
        std::mem::take(&mut *statements.0.lock().unwrap())
    })
}

impl Default for ErrorLog {
    fn default() -> Self {
        let errors = Errors::default();
        let dispatch = Dispatch::new(Registry::default().with(errors.clone()));
        Self { errors, dispatch }
    }
}

impl ErrorLog {
    /// Records the log of the current thread from now on. Each test has its own threads.
    pub(crate) fn record_this_thread(&self) {
        // The guard must not be dropped before the thread ends.
        std::mem::forget(tracing::dispatcher::set_default(&self.dispatch));
    }

    pub(crate) fn errors(&self) -> Vec<String> {
        self.errors.0.lock().unwrap().clone()
    }
}

impl<S: Subscriber> Layer<S> for Errors {
    fn on_new_span(&self, attributes: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        if attributes.metadata().name() == "sql" {
            let mut text = Text(String::new());
            attributes.record(&mut text);
            self.1.0.lock().unwrap().push(text.0);
        }
    }

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
