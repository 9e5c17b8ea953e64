//! Moves a file to another category, as part of an update.
//!
//! - *Allowed content.* A category rejects the move of a file that it would reject as an upload. The types of
//!   all versions that are or can become current are checked, and their sizes against the limits of their
//!   kinds. Categories define no retention, so the retention does not change.
//! - *Permissions.* Callers who may update the file may move it. Where all members may update it, a member
//!   who is neither its owner nor an admin must not move it to a category where more people see it, by role
//!   or by class, because that would bypass the owner's choice; nor to one where the member can no longer see
//!   it. Owners and admins may change the visibility of the file in any case.
//! - *Visibility.* Set by [`Policy::visibility_in_category`], unless the same update sets it. The classes
//!   that the file is attached to gain or lose access by the rules of the new category. Grants stay.
//! - *Usage.* The file and all of its versions are counted under the new category in the same transaction.
//!   The total does not change, so the row of the quota is only read.
//! - *Storage.* The bytes are not moved: a key contains the category of the upload, which need not be the
//!   current one.

use crate::{
    app::Error,
    db::{
        TenantTx, attachments, file_readers, quotas,
        usage_counters::{self, UsageDelta},
        versions,
    },
    domain::{
        caller::Caller,
        file::File,
        media_type::type_for_check,
        policy::{Policy, class_principals},
        violations::Violations,
    },
};

/// The readers of a file by policy, and their changes by a move to another category.
#[derive(Debug, Default)]
pub(super) struct ReaderChanges {
    /// Principals who become readers.
    pub(super) added: Vec<String>,
    /// Principals who no longer are readers by policy. They may have grants.
    pub(super) removed: Vec<String>,
    /// Principals who stay readers.
    unchanged: Vec<String>,
}

/// Adds a violation for each version of the file that the category would reject. `name` is the name after the
/// update.
pub(super) async fn check_versions(
    tx: &mut TenantTx,
    policy: &Policy,
    file: &File,
    name: &str,
    category: &str,
    violations: &mut Violations,
) -> Result<(), Error> {
    const FIELD: &str = "file.category";
    let types = policy.allowed_types(category);
    let limits = quotas::get(tx).await?.file_size_max_bytes;
    for content in versions::list_largest_by_type(tx, file.id).await? {
        let version = content.version;
        if let Err(refused) = types.check(&type_for_check(&content.mime_type, Some(&content.mime_type), name))
        {
            for violation in refused.iter() {
                violations.add(FIELD, format!("version {version}: {}", violation.description));
            }
        }
        let (kind, limit_bytes) = (content.media_kind, limits.for_kind(content.media_kind));
        if content.size_bytes > limit_bytes {
            let bytes = content.size_bytes;
            let message = format!(
                "version {version} has {bytes} bytes; a file of kind {kind} may have at most {limit_bytes}"
            );
            violations.add(FIELD, message);
        }
    }
    Ok(())
}

/// Computes the readers of a file by policy after a move to another category.
pub(super) async fn compute_readers(
    tx: &mut TenantTx,
    policy: &Policy,
    file: &File,
    category: &str,
) -> Result<ReaderChanges, Error> {
    let attachments = attachments::list(tx, &[file.id]).await?.remove(&file.id).unwrap_or_default();
    let granted = policy.readers(category, &attachments);
    // Use the attachments, not the rule of the old category: the rule may have changed since the upload.
    let class_readers = class_principals(&attachments);
    let before = file_readers::list_by_policy(tx, file.id).await?;
    let added = granted.iter().filter(|reader| !before.contains(reader)).cloned().collect();
    let (removed, unchanged) =
        before.into_iter().partition(|reader| class_readers.contains(reader) && !granted.contains(reader));
    Ok(ReaderChanges { added, removed, unchanged })
}

impl ReaderChanges {
    /// Returns whether the caller reads the file by policy after the move.
    pub(super) fn includes(&self, caller: &Caller) -> bool {
        let principals = caller.principals();
        self.unchanged.iter().chain(&self.added).any(|reader| principals.contains(reader))
    }
}

/// Counts a locked file and all of its versions under the new category. The file is not in the trash, so they
/// are charged.
pub(super) async fn move_usage(tx: &mut TenantTx, before: &File, after: &File) -> Result<(), Error> {
    let charge = versions::get_charge(tx, before.id).await?;
    let mut delta = UsageDelta::default();
    delta.add_file(before, &charge, -1);
    delta.add_file(after, &charge, 1);
    Ok(usage_counters::apply_delta(tx, &delta).await?)
}
