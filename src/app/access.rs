//! The one guard: may this caller do this to this file? The same rule stands in the row-level policy of `files`, which
//! decides what a query returns; this decides it again, and says what the caller may do with what it sees.

use super::error::Error;
use crate::{
    db::files::SeenFile,
    domain::{
        caller::{Caller, Role},
        file::{File, Visibility},
        policy::WriteRule,
    },
};

/// Whether the caller may see the file: its owner, its readers, and whoever its visibility names.
pub fn can_see(caller: &Caller, file: &File, is_granted: bool) -> bool {
    let by_role = match file.visibility {
        Visibility::Owner => caller.role >= Role::Admin,
        Visibility::Managers => caller.role >= Role::Manager,
        Visibility::Organization | Visibility::Public => true,
    };
    file.tenant_id == caller.tenant_id() && (by_role || is_granted || file.owner_id == caller.actor.id)
}

/// Answers the file, or NOT_FOUND, the same as for a random id.
pub fn seen(caller: &Caller, found: Option<SeenFile>) -> Result<File, Error> {
    found
        .filter(|found| can_see(caller, &found.file, found.is_granted))
        .map(|found| found.file)
        .ok_or(Error::NotFound("file"))
}

/// What is told to whoever is neither of the two.
pub(super) const OWNER_OR_ADMIN: &str = "only the file's owner and the tenant's admins may do this";

/// Whether the caller may change files of others that it sees.
pub fn writes_all(caller: &Caller) -> bool {
    match caller.tenant.policy.write {
        WriteRule::OwnerAndAdmins => caller.role >= Role::Admin,
        WriteRule::Members => true,
    }
}

/// Whether the caller may change, delete, restore or purge a file it sees.
pub fn can_write(caller: &Caller, file: &File) -> Result<(), Error> {
    if writes_all(caller) || file.owner_id == caller.actor.id {
        Ok(())
    } else {
        Err(Error::NotAllowed(OWNER_OR_ADMIN))
    }
}

/// Who would see a file after a change.
#[derive(Debug, Clone, Copy)]
pub struct Sight<'a> {
    /// Its visibility then.
    pub visibility: Visibility,
    /// Who comes to read it by name.
    pub gained: &'a [String],
    /// Whether the caller then reads it by name.
    pub is_granted: bool,
}

/// Whether the caller may change who sees a file in this way. Where every member writes, nobody but owner and admins may hide a
/// file from themselves: it would be lost to them in the same breath. Nor may they show it to more than its owner did.
pub fn can_show_to(caller: &Caller, file: &File, sight: Sight<'_>) -> Result<(), Error> {
    let Sight { visibility, gained, is_granted } = sight;
    let changed = File { visibility, ..file.clone() };
    // Where everyone sees a file, nobody comes to see it by name.
    let is_gained = !gained.is_empty() && file.visibility < Visibility::Organization;
    if is_owner_or_admin(caller, file) {
        Ok(())
    } else if visibility > file.visibility || is_gained {
        Err(Error::NotAllowed("only the file's owner and the tenant's admins may show it to more people"))
    } else if can_see(caller, &changed, is_granted) {
        Ok(())
    } else {
        Err(Error::NotAllowed("only the file's owner and the tenant's admins may hide it from you"))
    }
}

fn is_owner_or_admin(caller: &Caller, file: &File) -> bool {
    caller.role >= Role::Admin || file.owner_id == caller.actor.id
}

/// Whether the caller may change the tenant's settings.
pub fn can_administer(caller: &Caller) -> Result<(), Error> {
    if caller.role >= Role::Admin {
        Ok(())
    } else {
        Err(Error::NotAllowed("only the tenant's admins may do this"))
    }
}
