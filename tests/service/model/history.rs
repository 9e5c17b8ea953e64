//! The operations of a block of sequences, for its failure message, and the detection of blocks that hang.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// The service responds within two minutes, if only with a timeout. A step that takes longer than this hangs.
const STEP_DURATION_MAX: Duration = Duration::from_secs(180);

/// The current phase of a block. The thread of the block writes it and the thread of the test reads it;
/// clones share their content.
#[derive(Clone)]
pub(super) struct History(Arc<Mutex<Phase>>);

/// A sequence, or the clean-up after the last one.
struct Phase {
    name: String,
    /// The value of `STRONGROOM_MODEL_SEED` that reproduces it.
    seeds: String,
    steps: Vec<String>,
    /// The start of the last step.
    start: Instant,
}

impl History {
    pub(super) fn new(seeds: String) -> Self {
        let name = "before the first sequence".to_owned();
        Self(Arc::new(Mutex::new(Phase { name, seeds, steps: Vec::new(), start: Instant::now() })))
    }

    /// Starts a phase and drops the steps of the one before, which succeeded.
    pub(super) fn restart(&self, name: String, seeds: String) {
        *self.phase() = Phase { name, seeds, steps: Vec::new(), start: Instant::now() };
    }

    pub(super) fn add_step(&self, step: impl Into<String>) {
        let mut phase = self.phase();
        phase.steps.push(step.into());
        phase.start = Instant::now();
    }

    /// Returns whether the last step has taken longer than [`STEP_DURATION_MAX`].
    pub(super) fn is_stuck(&self) -> bool {
        self.phase().start.elapsed() > STEP_DURATION_MAX
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        // A panic cannot leave a half-written phase, so a poisoned lock is safe to use.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = self.phase();
        write!(
            f,
            "{}, at the last step below; reproduce with STRONGROOM_MODEL_SEED={}",
            phase.name, phase.seeds
        )?;
        phase.steps.iter().enumerate().try_for_each(|(n, step)| write!(f, "\n{n:>3} {step}"))
    }
}
