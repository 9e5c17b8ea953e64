//! Moves a file to another category, as a part of its update.
//!
//! *What is taken.* What the new category would not take as an upload, it does not take as a move: the types of all versions
//! are judged that can become current, now or again, and their sizes by the limits of their kinds. Categories prescribe no
//! retention, so none changes.
//!
//! *Who may.* Whoever may update the file. Where every member may, a member who is neither its owner nor an admin may not move
//! it where more people see it, by role or by class: it would be a way around the owner's word. Nor where the member does not
//! see it any more. For owners and admins it is no way around anything: they may say who sees the file by themselves.
//!
//! *Who sees it then.* Unless the same update says it: as [`Policy::visibility_in`] says. The classes that the file is attached to
//! come to read it, or cease to, as the new category has it; whoever was given it otherwise keeps it.
//!
//! *What is counted.* The file and every version of it are counted under the new category in the same transaction. The sum does
//! not change, so the quota's row is only read.
//!
//! *Where its bytes lie.* Where they were: a key holds the category of the upload, and says nothing about the file after it.

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
        media_type::judged,
        policy::{Policy, classes},
        violations::Violations,
    },
};

/// Who reads a file by name, and how its new category changes that.
#[derive(Debug, Default)]
pub(super) struct Readers {
    /// Who comes to read it.
    pub(super) gained: Vec<String>,
    /// Who does not read it any more.
    pub(super) lost: Vec<String>,
    /// Who reads it before and after.
    kept: Vec<String>,
}

/// Notes everything that a category would not take of a file, which is called so after the update.
pub(super) async fn check(
    tx: &mut TenantTx,
    policy: &Policy,
    (file, name): (&File, &str),
    category: &str,
    wrong: &mut Violations,
) -> Result<(), Error> {
    const FIELD: &str = "file.category";
    let types = policy.taken_types(category);
    let limits = quotas::get(tx).await?.file_size_max_bytes;
    for content in versions::largest_of_each_type(tx, file.id).await? {
        let version = content.version;
        if let Err(refused) = types.check(&judged(&content.mime_type, Some(&content.mime_type), name)) {
            for violation in refused.iter() {
                wrong.add(FIELD, format!("version {version}: {}", violation.description));
            }
        }
        let (kind, limit_bytes) = (content.media_kind, limits.of(content.media_kind));
        if content.size_bytes > limit_bytes {
            let bytes = content.size_bytes;
            let why = format!(
                "version {version} has {bytes} bytes; a file of kind {kind} may have at most {limit_bytes}"
            );
            wrong.add(FIELD, why);
        }
    }
    Ok(())
}

/// Who reads a file by name once it is in another category.
pub(super) async fn readers(
    tx: &mut TenantTx,
    policy: &Policy,
    file: &File,
    category: &str,
) -> Result<Readers, Error> {
    let attachments = attachments::list(tx, &[file.id]).await?.remove(&file.id).unwrap_or_default();
    let given = policy.readers(category, &attachments);
    // By the attachments and not by the old category, whose rule may have been another one when the file came.
    let of_classes = classes(&attachments);
    let before = file_readers::list(tx, file.id).await?;
    let gained = given.iter().filter(|reader| !before.contains(reader)).cloned().collect();
    let (lost, kept) =
        before.into_iter().partition(|reader| of_classes.contains(reader) && !given.contains(reader));
    Ok(Readers { gained, lost, kept })
}

impl Readers {
    /// Whether the caller is among them afterwards.
    pub(super) fn includes(&self, caller: &Caller) -> bool {
        let principals = caller.principals();
        self.kept.iter().chain(&self.gained).any(|reader| principals.contains(reader))
    }
}

/// Counts a file, which is locked, and all its versions under its new category. It is not in the trash, so they are charged.
pub(super) async fn count(tx: &mut TenantTx, before: &File, after: &File) -> Result<(), Error> {
    let charge = versions::charge(tx, before.id).await?;
    let mut delta = UsageDelta::default();
    delta.file(before, &charge, -1);
    delta.file(after, &charge, 1);
    Ok(usage_counters::apply(tx, &delta).await?)
}
