//! What a block of sequences is doing, step by step, for whoever reads of its failure; and whether it still does anything.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// The service answers or gives up within two minutes, whatever it waits for; what takes longer than this waits for ever.
const STEP_AT_MOST: Duration = Duration::from_secs(180);

/// A story, told by the thread of its block and read by the test's. Clones share it.
#[derive(Clone)]
pub(super) struct Story(Arc<Mutex<Told>>);

struct Told {
    what: String,
    /// What runs it again.
    again: String,
    steps: Vec<String>,
    since: Instant,
}

impl Story {
    pub(super) fn new(again: String) -> Self {
        let what = "before the first sequence".to_owned();
        Self(Arc::new(Mutex::new(Told { what, again, steps: Vec::new(), since: Instant::now() })))
    }

    /// Something new begins; what was before went well.
    pub(super) fn begin(&self, what: String, again: String) {
        *self.told() = Told { what, again, steps: Vec::new(), since: Instant::now() };
    }

    pub(super) fn step(&self, step: impl Into<String>) {
        let mut told = self.told();
        told.steps.push(step.into());
        told.since = Instant::now();
    }

    /// Whether the last step does not end.
    pub(super) fn is_stuck(&self) -> bool {
        self.told().since.elapsed() > STEP_AT_MOST
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        // Every statement leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = self.told();
        write!(f, "{}, in its last step; again with STRONGROOM_MODEL_SEED={}", told.what, told.again)?;
        told.steps.iter().enumerate().try_for_each(|(n, step)| write!(f, "\n{n:>3} {step}"))
    }
}
