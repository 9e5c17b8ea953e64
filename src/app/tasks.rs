//! Tasks that outlive their calls, such as commits and the clean-up after disconnected clients, and the calls
//! themselves. A process that stops waits for all of them.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tokio::task::{JoinError, JoinHandle};
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};

/// The running tasks and calls of a process. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Tasks {
    calls: TaskTracker,
    tasks: TaskTracker,
}

impl Tasks {
    /// Starts a task. It continues if the returned value is dropped.
    ///
    /// The drop of an output can start another task: that of an open upload abandons it. So the task counts
    /// as running until its output is received or dropped, and there is no moment in between in which nothing
    /// seems to run.
    pub(super) fn spawn<F>(&self, future: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let token = self.tasks.token();
        Task(tokio::spawn(async move {
            let output = future.await;
            TaskOutput { output, _token: token }
        }))
    }

    /// Counts a call until the returned value is dropped.
    pub(super) fn start_call(&self) -> RunningCall {
        RunningCall { _token: self.calls.token() }
    }

    /// Returns whether no call and no task is running.
    pub(super) fn is_idle(&self) -> bool {
        // In this order, because calls start tasks.
        self.calls.is_empty() && self.tasks.is_empty()
    }

    /// Waits until no call and no task is running. The caller has stopped the entrances of calls.
    pub(super) async fn wait_until_idle(&self) {
        for running in [&self.calls, &self.tasks] {
            running.close();
            running.wait().await;
        }
    }
}

/// A task that was started. Its output can be awaited.
#[derive(Debug)]
pub(super) struct Task<T>(JoinHandle<TaskOutput<T>>);

/// An output that nobody has received yet. It is dropped before the token, wherever that happens: in the task,
/// or in a receiver that is dropped.
#[derive(Debug)]
struct TaskOutput<T> {
    output: T,
    _token: TaskTrackerToken,
}

impl<T> Future for Task<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map_ok(|ended| ended.output)
    }
}

/// A call in progress. Dropping it ends the call.
#[derive(Debug)]
pub struct RunningCall {
    _token: TaskTrackerToken,
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use tokio::task::yield_now;

    use super::*;

    /// Starts a task when it is dropped, as an open upload does. The task counts itself when it ends.
    struct CleanedUp {
        tasks: Tasks,
        ended: Arc<AtomicUsize>,
    }

    impl Drop for CleanedUp {
        fn drop(&mut self) {
            let ended = Arc::clone(&self.ended);
            self.tasks.spawn(async move {
                for _ in 0..10 {
                    yield_now().await;
                }
                ended.fetch_add(1, Ordering::SeqCst);
            });
        }
    }

    /// Returns the tasks, a value that is cleaned up when it is dropped, and the number of ended clean-ups.
    fn cleaned_up() -> (Tasks, CleanedUp, Arc<AtomicUsize>) {
        let (tasks, ended) = (Tasks::default(), Arc::<AtomicUsize>::default());
        (tasks.clone(), CleanedUp { tasks, ended: Arc::clone(&ended) }, ended)
    }

    #[tokio::test]
    async fn output_without_a_receiver_is_cleaned_up_in_time() {
        let (tasks, value, ended) = cleaned_up();
        drop(tasks.spawn(async move { value }));
        tasks.wait_until_idle().await;
        assert_eq!(ended.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn output_of_a_late_receiver_is_cleaned_up_in_time() {
        let (tasks, value, ended) = cleaned_up();
        let task = tasks.spawn(async move { value });
        while !task.0.is_finished() {
            yield_now().await;
        }
        assert!(!tasks.is_idle(), "the output was not received");
        drop(task);
        assert!(!tasks.is_idle(), "the clean-up is running");
        tasks.wait_until_idle().await;
        assert_eq!(ended.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn received_output_belongs_to_its_receiver() {
        let (tasks, value, ended) = cleaned_up();
        let received = tasks.spawn(async move { value }).await.unwrap();
        assert!(tasks.is_idle());
        drop(received);
        tasks.wait_until_idle().await;
        assert_eq!(ended.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn task_that_panics_ends() {
        let tasks = Tasks::default();
        let panicked = tasks.spawn(async { panic!("in a task") }).await;
        assert!(panicked.unwrap_err().is_panic());
        assert!(tasks.is_idle());
    }

    #[tokio::test]
    async fn clean_up_after_the_last_call_is_waited_for() {
        let (tasks, value, ended) = cleaned_up();
        let call = tasks.start_call();
        tokio::spawn(async move {
            yield_now().await;
            drop((value, call));
        });
        assert!(!tasks.is_idle());
        tasks.wait_until_idle().await;
        assert_eq!(ended.load(Ordering::SeqCst), 1);
        assert!(tasks.is_idle());
    }
}
