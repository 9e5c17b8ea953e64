//! Access checks: what a caller may do with a file, and by which rule.
//!
//! The row-level security policy of `files` implements the same visibility rule and decides which rows a
//! query returns. These functions check it a second time, and also decide what the caller may do with a visible
//! file. `docs/decisions/0011-grants.md` describes the rule.

use super::error::{Denial, Error, Resource};
use crate::{
    db::files::VisibleFile,
    domain::{
        caller::{Caller, Role},
        file::{File, Visibility},
        permission::Permission,
        policy::WriteRule,
        scope::Scope,
    },
};

/// What a caller wants to do with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Reads the record, the versions and the events.
    View,
    /// Reads the bytes for display.
    ReadInline,
    /// Reads the bytes and saves them.
    Download,
    /// Creates a file with the same bytes.
    Copy,
    /// Moves the file to the trash.
    Delete,
    /// Changes, restores or purges the file, or adds a version.
    Change,
    /// Gives a permission to others. The expiry is checked separately.
    Grant(Permission),
    /// Sets a legal hold, or changes the owner.
    Administer,
}

/// The rule that permits an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessRule {
    /// The caller owns the file.
    Owner,
    /// The caller is an admin of the tenant.
    Admin,
    /// The visibility of the file includes the role of the caller.
    Visibility,
    /// The policy of the category includes a group of the caller.
    Category,
    /// A grant or a share gives this permission to the caller, one of its groups or its organization.
    Grant(Permission),
}

impl AccessRule {
    /// Returns whether the rule permits an operation, under a policy with this rule for changes.
    fn permits(self, operation: Operation, write: WriteRule) -> bool {
        use Operation as O;
        match self {
            Self::Admin => true,
            Self::Owner => operation != O::Administer,
            Self::Visibility | Self::Category => match operation {
                O::View | O::ReadInline | O::Download | O::Copy => true,
                O::Delete | O::Change => write == WriteRule::Members,
                O::Grant(_) | O::Administer => false,
            },
            // A grant is a permission on this file, so it permits no copy, which would outlast it.
            Self::Grant(permission) => match operation {
                O::View | O::ReadInline => true,
                O::Download => permission >= Permission::Download,
                O::Delete => permission >= Permission::Delete,
                O::Grant(given) => permission >= given,
                O::Copy | O::Change | O::Administer => false,
            },
        }
    }
}

/// Returns the rules by which the caller sees the file; none if the file is hidden from it.
fn rules(caller: &Caller, found: &VisibleFile) -> impl Iterator<Item = AccessRule> {
    let VisibleFile { file, is_policy_reader, granted } = found;
    let by_role = match file.visibility {
        Visibility::Owner => caller.role >= Role::Admin,
        Visibility::Managers => caller.role >= Role::Manager,
        Visibility::Organization | Visibility::Public => true,
    };
    let is_member = file.tenant_id == caller.tenant_id();
    let rules = [
        (file.owner_id == caller.actor.id).then_some(AccessRule::Owner),
        (caller.role >= Role::Admin).then_some(AccessRule::Admin),
        by_role.then_some(AccessRule::Visibility),
        is_policy_reader.then_some(AccessRule::Category),
        granted.map(AccessRule::Grant),
    ];
    rules.into_iter().flatten().filter(move |_| is_member)
}

/// Returns the rule by which the caller may do something with a file.
///
/// # Errors
/// Returns `NotFound` if the file is hidden from the caller, and `NotAllowed` if no rule permits the operation.
pub fn check_access(caller: &Caller, found: &VisibleFile, operation: Operation) -> Result<AccessRule, Error> {
    if !can_see(caller, found) {
        return Err(Error::NotFound(Resource::File));
    }
    let write = caller.tenant.policy.write;
    let permitting = rules(caller, found).find(|rule| rule.permits(operation, write));
    permitting.ok_or(Error::NotAllowed(denial(operation)))
}

fn denial(operation: Operation) -> Denial {
    match operation {
        Operation::View | Operation::ReadInline | Operation::Delete | Operation::Change => {
            Denial::OwnerAndAdminsOnly
        }
        Operation::Download => Denial::ViewsOnly,
        Operation::Copy => Denial::CopiesGrantedFile,
        Operation::Grant(_) => Denial::WidensGrant,
        Operation::Administer => Denial::AdminsOnly,
    }
}

/// Returns whether the caller may see the file.
pub fn can_see(caller: &Caller, found: &VisibleFile) -> bool {
    rules(caller, found).next().is_some()
}

/// Returns the file if the caller may see it.
///
/// # Errors
/// Returns `NotFound` both for a file that does not exist and for a hidden one, so that callers cannot probe for
/// ids.
pub fn require_visible(caller: &Caller, found: Option<VisibleFile>) -> Result<File, Error> {
    require_access(caller, found, Operation::View)
}

/// Returns the file if the caller may do something with it.
///
/// # Errors
/// Returns `NotFound` both for a file that does not exist and for a hidden one, and `NotAllowed` for a visible one.
pub fn require_access(
    caller: &Caller,
    found: Option<VisibleFile>,
    operation: Operation,
) -> Result<File, Error> {
    let found = found.ok_or(Error::NotFound(Resource::File))?;
    check_access(caller, &found, operation)?;
    Ok(found.file)
}

/// What a reader may do with the bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// Display the bytes, and not save them.
    Inline,
    /// Display or save the bytes.
    Attachment,
}

/// Returns what the caller may do with the bytes of a file.
///
/// # Errors
/// Returns `NotFound` if the file is hidden from the caller.
pub fn disposition(caller: &Caller, found: &VisibleFile) -> Result<Disposition, Error> {
    check_access(caller, found, Operation::ReadInline)?;
    match check_access(caller, found, Operation::Download) {
        Ok(_) => Ok(Disposition::Attachment),
        Err(Error::NotAllowed(_)) => Ok(Disposition::Inline),
        Err(error) => Err(error),
    }
}

/// Returns whether the caller may change all files that its role sees, also those of other owners.
pub fn can_write_all(caller: &Caller) -> bool {
    match caller.tenant.policy.write {
        WriteRule::OwnerAndAdmins => caller.role >= Role::Admin,
        WriteRule::Members => true,
    }
}

/// The audience of a file after a change.
#[derive(Debug, Clone, Copy)]
pub struct VisibilityChange<'a> {
    pub visibility: Visibility,
    /// Principals who become readers by the policy of the category.
    pub added_readers: &'a [String],
    /// Whether the caller is a reader by policy after the change.
    pub is_policy_reader: bool,
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
    let VisibilityChange { visibility, added_readers, is_policy_reader } = change;
    let changed = File { visibility, ..file.clone() };
    let changed = VisibleFile { file: changed, is_policy_reader, granted: None };
    // A reader by policy adds nothing if the whole organization already sees the file.
    let is_widened = !added_readers.is_empty() && file.visibility < Visibility::Organization;
    if is_owner_or_admin(caller, file) {
        Ok(())
    } else if visibility > file.visibility || is_widened {
        Err(Error::NotAllowed(Denial::WidensAudience))
    } else if can_see(caller, &changed) {
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

/// Checks that the token of the caller has a scope.
///
/// # Errors
/// Returns `NotAllowed` if not.
pub fn check_has_scope(caller: &Caller, scope: Scope) -> Result<(), Error> {
    if caller.scopes.contains(&scope) { Ok(()) } else { Err(Error::NotAllowed(Denial::ScopeMissing(scope))) }
}
