//! The allowed transitions between file states. The database rejects all others (see the migration
//! `guard_file_transitions`).
//!
//! Content state, trash and archive change independently. A file in the trash or the archive can still be
//! found infected; when it is restored or unarchived, its state is that of its content.

use super::file::{ContentState, FileState, WrongState};

impl FileState {
    /// Checks that a file in this state can be archived. Archiving an archived file has no effect.
    pub fn check_archivable(self) -> Result<(), WrongState> {
        match self {
            Self::Available | Self::Archived => Ok(()),
            Self::Deleted => Err(WrongState::Deleted),
            state => Err(WrongState::State(state)),
        }
    }

    /// Checks that a file in this state accepts a new version.
    ///
    /// Archived files do not, because the new version would be either readable in the archive or hidden.
    /// Quarantined and damaged files do; the old version keeps its state.
    pub fn check_accepts_version(self) -> Result<(), WrongState> {
        match self {
            Self::Deleted => Err(WrongState::Deleted),
            Self::Archived => Err(WrongState::State(self)),
            _ => Ok(()),
        }
    }

    /// Checks that a file in this state can be unarchived. Unarchiving a file that is not archived has no
    /// effect.
    pub fn check_unarchivable(self) -> Result<(), WrongState> {
        match self {
            Self::Deleted => Err(WrongState::Deleted),
            _ => Ok(()),
        }
    }
}

impl ContentState {
    /// Returns whether the content of a version can change from this state to another.
    ///
    /// A quarantined version cannot become readable by another scan; this function does not decide who may
    /// release it. A missing or damaged version keeps its state, unless `fsck` finds the object intact: that
    /// is a repair of the record, which requires the setting `app.repair`, and not a transition of the
    /// content.
    pub fn can_become(self, next: Self) -> bool {
        use ContentState::{Available, Error, Processing, Quarantined, Unscannable};
        match self {
            Processing => matches!(next, Available | Quarantined | Unscannable | Error),
            Available => matches!(next, Processing | Quarantined | Error),
            Quarantined => matches!(next, Available | Error),
            Unscannable => matches!(next, Available | Processing | Error),
            Error => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::file::project_state;

    /// An operation on a file.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        Content(ContentState),
        Archive(bool),
        Delete(bool),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            proptest::sample::select(ContentState::ALL).prop_map(Step::Content),
            any::<bool>().prop_map(Step::Archive),
            any::<bool>().prop_map(Step::Delete),
        ]
    }

    /// The transitions that callers can observe.
    fn is_allowed(from: FileState, to: FileState) -> bool {
        use FileState::{Archived, Available, Deleted, Error, Processing, Quarantined, Unscannable};
        match from {
            Processing => matches!(to, Available | Quarantined | Unscannable | Error | Deleted),
            Available => matches!(to, Archived | Processing | Quarantined | Error | Deleted),
            Archived => matches!(to, Available | Deleted),
            Quarantined => matches!(to, Available | Error | Deleted),
            Unscannable => matches!(to, Available | Processing | Error | Deleted),
            Error => to == Deleted,
            Deleted => true,
            FileState::Pending => false,
        }
    }

    proptest! {
        #[test]
        fn any_operations_cause_only_allowed_transitions(steps in proptest::collection::vec(step(), 1..40)) {
            let (mut content, mut is_deleted, mut is_archived) = (ContentState::Processing, false, false);
            for step in steps {
                let before = project_state(content, is_deleted, is_archived);
                match step {
                    Step::Content(next) if content.can_become(next) => content = next,
                    Step::Archive(true) if before.check_archivable().is_ok() => is_archived = true,
                    Step::Archive(false) if before.check_unarchivable().is_ok() => is_archived = false,
                    Step::Delete(is_requested) => is_deleted = is_requested,
                    Step::Content(_) | Step::Archive(_) => {}
                }
                let after = project_state(content, is_deleted, is_archived);
                // An unarchived file gets the state of its content, which may have changed in the archive.
                let is_unarchived = before == FileState::Archived && after == project_state(content, false, false);
                prop_assert!(before == after || is_allowed(before, after) || is_unarchived, "{before:?} -> {after:?}");
            }
        }
    }

    #[test]
    fn infected_content_never_becomes_readable_by_a_scan() {
        assert!(!ContentState::Quarantined.can_become(ContentState::Processing));
        for state in ContentState::ALL {
            assert!(!ContentState::Error.can_become(*state));
            assert!(!state.can_become(*state), "remaining in a state is not a transition");
        }
    }
}
