//! Access checks: whether a caller may see or change a file.
//!
//! The row-level security policy of `files` implements the same visibility rule and decides which rows a
//! query returns. These functions check it a second time, and also decide which visible files the caller may
//! change.

use super::error::{Denial, Error, Resource};
use crate::{
    db::files::VisibleFile,
    domain::{
        caller::{Caller, Role},
        file::{File, Visibility},
        policy::WriteRule,
    },
};

/// Returns whether the caller may see the file: as its owner, as one of its readers, or by its visibility.
pub fn can_see(caller: &Caller, file: &File, has_read_grant: bool) -> bool {
    let by_role = match file.visibility {
        Visibility::Owner => caller.role >= Role::Admin,
        Visibility::Managers => caller.role >= Role::Manager,
        Visibility::Organization | Visibility::Public => true,
    };
    file.tenant_id == caller.tenant_id() && (by_role || has_read_grant || file.owner_id == caller.actor.id)
}

/// Returns the file if the caller may see it.
///
/// # Errors
/// Returns `NotFound` both for a file that does not exist and for a hidden one, so that callers cannot probe for
/// ids.
pub fn require_visible(caller: &Caller, found: Option<VisibleFile>) -> Result<File, Error> {
    found
        .filter(|found| can_see(caller, &found.file, found.has_read_grant))
        .map(|found| found.file)
        .ok_or(Error::NotFound(Resource::File))
}

/// Returns whether the caller may change visible files of other owners.
pub fn can_write_all(caller: &Caller) -> bool {
    match caller.tenant.policy.write {
        WriteRule::OwnerAndAdmins => caller.role >= Role::Admin,
        WriteRule::Members => true,
    }
}

/// Checks that the caller may change, delete, restore or purge a file that it may see.
///
/// # Errors
/// Returns `NotAllowed` if not.
pub fn check_can_write(caller: &Caller, file: &File) -> Result<(), Error> {
    if can_write_all(caller) || file.owner_id == caller.actor.id {
        Ok(())
    } else {
        Err(Error::NotAllowed(Denial::OwnerAndAdminsOnly))
    }
}

/// The audience of a file after a change.
#[derive(Debug, Clone, Copy)]
pub struct VisibilityChange<'a> {
    pub visibility: Visibility,
    /// Principals who gain a read grant.
    pub added_readers: &'a [String],
    /// Whether the caller has a read grant after the change.
    pub has_read_grant: bool,
}

/// Checks that the caller may change the audience of a file in this way.
///
/// Under `WriteRule::Members`, other members may change the file. They must not widen its audience beyond
/// what the owner chose, and must not hide the file from themselves, because they could not undo that.
///
/// # Errors
/// Returns `NotAllowed` if not.
pub fn check_visibility_change(
    caller: &Caller,
    file: &File,
    change: VisibilityChange<'_>,
) -> Result<(), Error> {
    let VisibilityChange { visibility, added_readers, has_read_grant } = change;
    let changed = File { visibility, ..file.clone() };
    // A read grant adds nothing if the whole organization already sees the file.
    let is_widened = !added_readers.is_empty() && file.visibility < Visibility::Organization;
    if is_owner_or_admin(caller, file) {
        Ok(())
    } else if visibility > file.visibility || is_widened {
        Err(Error::NotAllowed(Denial::WidensAudience))
    } else if can_see(caller, &changed, has_read_grant) {
        Ok(())
    } else {
        Err(Error::NotAllowed(Denial::HidesFromCaller))
    }
}

/// Returns whether the caller owns the file or is an admin of its tenant.
pub fn is_owner_or_admin(caller: &Caller, file: &File) -> bool {
    caller.role >= Role::Admin || file.owner_id == caller.actor.id
}

/// Checks that the caller may change the tenant's settings.
///
/// # Errors
/// Returns `NotAllowed` if the caller is not an admin.
pub fn check_is_admin(caller: &Caller) -> Result<(), Error> {
    if caller.role >= Role::Admin { Ok(()) } else { Err(Error::NotAllowed(Denial::AdminsOnly)) }
}
