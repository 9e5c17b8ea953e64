//! The moves between the states of a file: all that there are. The database refuses every other (`app.guard_file_move`).
//!
//! Content, trash and archive move independently: what lies in the trash or in the archive can still be found infected, and
//! comes out of there as what its content has become.

use super::file::{ContentState, FileState, WrongState};

impl FileState {
    /// Whether a file in this state may be archived; one that is archived stays so.
    pub fn may_be_archived(self) -> Result<(), WrongState> {
        match self {
            Self::Available | Self::Archived => Ok(()),
            Self::Deleted => Err(WrongState::Deleted),
            state => Err(WrongState::State(state)),
        }
    }

    /// Whether a file in this state may get another content. What is archived rests: a new content would either be readable
    /// there or hide behind the old one. What is quarantined or damaged may be replaced, and stays what it is as a version.
    pub fn may_get_a_version(self) -> Result<(), WrongState> {
        match self {
            Self::Deleted => Err(WrongState::Deleted),
            Self::Archived => Err(WrongState::State(self)),
            _ => Ok(()),
        }
    }

    /// Whether a file in this state may be taken out of the archive; one that is not archived stays as it is.
    pub fn may_be_unarchived(self) -> Result<(), WrongState> {
        match self {
            Self::Deleted => Err(WrongState::Deleted),
            _ => Ok(()),
        }
    }
}

impl ContentState {
    /// Whether the content of one version may move from this state to another. What was found infected cannot
    /// be scanned again into readability; who may release it is not decided here. What is missing or damaged stays so, unless `fsck` finds it whole
    /// again: that is a repair of the record, by `app.repair` alone, and no move of the content.
    pub fn may_become(self, next: Self) -> bool {
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
    use crate::domain::file::project;

    /// What happens to a file.
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

    /// The moves that callers may see, written out; staying is no move.
    fn policy(from: FileState, to: FileState) -> bool {
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
        fn whatever_happens_to_a_file_it_moves_as_the_policy_lists(steps in proptest::collection::vec(step(), 1..40)) {
            let (mut content, mut is_deleted, mut is_archived) = (ContentState::Processing, false, false);
            for step in steps {
                let before = project(content, is_deleted, is_archived);
                match step {
                    Step::Content(next) if content.may_become(next) => content = next,
                    Step::Archive(true) if before.may_be_archived().is_ok() => is_archived = true,
                    Step::Archive(false) if before.may_be_unarchived().is_ok() => is_archived = false,
                    Step::Delete(wanted) => is_deleted = wanted,
                    Step::Content(_) | Step::Archive(_) => {}
                }
                let after = project(content, is_deleted, is_archived);
                // Out of the archive a file comes as what its content has become meanwhile.
                let comes_out = before == FileState::Archived && after == project(content, false, false);
                prop_assert!(before == after || policy(before, after) || comes_out, "{before:?} -> {after:?}");
            }
        }
    }

    #[test]
    fn what_was_found_infected_never_becomes_readable_by_a_scan() {
        assert!(!ContentState::Quarantined.may_become(ContentState::Processing));
        for state in ContentState::ALL {
            assert!(!ContentState::Error.may_become(*state));
            assert!(!state.may_become(*state), "staying is no move");
        }
    }
}
