//! Work for the first calls of a tenant.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// A mark of everything that works for a first call. A tenant without a successful call is removed only when all
/// clones are dropped, so a task that outlives its call holds one.
#[derive(Clone)]
pub struct FirstCallWork(Arc<Work>);

struct Work {
    may_have_objects: AtomicBool,
    end: Option<Box<dyn FnOnce(bool) + Send + Sync>>,
}

impl FirstCallWork {
    /// Creates a mark. When its last clone is dropped, `end` is called with whether an object of the tenant may be
    /// stored.
    pub fn new(end: impl FnOnce(bool) + Send + Sync + 'static) -> Self {
        Self(Arc::new(Work { may_have_objects: AtomicBool::new(false), end: Some(Box::new(end)) }))
    }

    /// Notes that an object of the tenant may be stored from now on.
    pub fn note_object(&self) {
        self.0.may_have_objects.store(true, Ordering::SeqCst);
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            end(self.may_have_objects.load(Ordering::SeqCst));
        }
    }
}

impl fmt::Debug for FirstCallWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FirstCallWork")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn work_ends_with_its_last_clone() {
        let ended = Arc::new(Mutex::new(None));
        let seen = Arc::clone(&ended);
        let work = FirstCallWork::new(move |may_have_objects| *seen.lock().unwrap() = Some(may_have_objects));
        let task = work.clone();
        drop(work);
        assert_eq!(*ended.lock().unwrap(), None);
        task.note_object();
        drop(task);
        assert_eq!(*ended.lock().unwrap(), Some(true));
    }
}
