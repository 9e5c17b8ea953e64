//! Checks whether uploads would fit. It reserves nothing; the charge in the commit is the final decision.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::{
    app::{
        App, Error,
        access::{Operation, require_access},
        quotas::trash::hide_usage,
    },
    db::{TenantTx, Viewer, files, quotas, user_quotas, versions},
    domain::{
        caller::Caller, file_fields::check_category, ids::FileId, media_type::MediaKind, policy::Policy,
        quota::Quota, user_quota::UserQuota, violations::Violations,
    },
};

/// The maximum number of uploads in one check.
const ITEMS_MAX: usize = 100;

/// An upload to check.
#[derive(Debug, Clone)]
pub struct CheckItem {
    pub size_bytes: i64,
    /// The category of a new file. Empty means the default of the policy.
    pub category: String,
    /// The content type; empty if it is not known.
    pub mime_type: String,
    /// The file of a new version; `None` for a new file.
    pub file: Option<FileId>,
}

/// The result of a check. The errors are those that the uploads would get.
#[derive(Debug)]
pub struct QuotaCheck {
    /// The errors of each item by itself, in the order of the request.
    pub items: Vec<Vec<Error>>,
    /// The errors of all items together.
    pub total: Vec<Error>,
    pub total_bytes: i64,
    /// The number of new files.
    pub file_count: i64,
    /// The quota with which the items were compared.
    pub quota: Quota,
}

impl QuotaCheck {
    /// Returns whether all items fit.
    pub fn fits(&self) -> bool {
        self.total.is_empty() && self.items.iter().all(Vec::is_empty)
    }

    /// Returns the number of files that can still be stored; `None` without a limit.
    pub fn available_file_count(&self) -> Option<i64> {
        let Quota { file_count_max, file_count, reserved_file_count, .. } = &self.quota;
        (*file_count_max > 0).then(|| (file_count_max - file_count - reserved_file_count).max(0))
    }
}

/// The file of new versions.
struct VersionedFile {
    category: String,
    owner_id: String,
    version_count: usize,
}

/// Checks whether uploads would fit, each by itself and all together.
///
/// # Errors
/// Returns `Invalid` with every violation, and `NotFound`, `NotAllowed` or the error of its state for a file that
/// accepts no version of the caller.
pub async fn check_quota(app: &App, caller: &Caller, items: &[CheckItem]) -> Result<QuotaCheck, Error> {
    check_items(&caller.tenant.policy, items)?;
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?;
    let read = read_in_tx(app, &mut tx, caller, items).await;
    let read = tx.finish(read).await?;
    Ok(compare(app, caller, items, read))
}

fn check_items(policy: &Policy, items: &[CheckItem]) -> Result<(), Violations> {
    if items.is_empty() || items.len() > ITEMS_MAX {
        let problem = format!("must have 1 to {ITEMS_MAX} items, has {}", items.len());
        return Err(Violations::one("items", problem));
    }
    let mut violations = Violations::new();
    for (index, item) in items.iter().enumerate() {
        if item.size_bytes < 0 {
            let problem = format!("must not be negative, is {}", item.size_bytes);
            violations.add(format!("items[{index}].size_bytes"), problem);
        }
        if item.file.is_none() {
            let field = format!("items[{index}].category");
            check_category(&field, category_of(policy, item), policy, &mut violations);
        }
    }
    violations.into_result()
}

fn category_of<'a>(policy: &'a Policy, item: &'a CheckItem) -> &'a str {
    if item.category.is_empty() { &policy.category_default } else { &item.category }
}

/// The rows with which the items are compared.
struct CheckData {
    quota: Quota,
    /// The quotas of the owners of the files, if they have one.
    users: HashMap<String, UserQuota>,
    /// The files that get new versions.
    files: HashMap<FileId, VersionedFile>,
}

impl CheckData {
    /// Returns the quota of the owner of an item's file.
    fn user_quota(&self, caller: &Caller, item: &CheckItem) -> Option<&UserQuota> {
        let file = item.file.and_then(|id| self.files.get(&id));
        self.users.get(file.map_or(caller.actor.id.as_str(), |file| &file.owner_id))
    }
}

async fn read_in_tx(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    items: &[CheckItem],
) -> Result<CheckData, Error> {
    let version_count_max = i64::from(app.limits.uploads.versions_per_file_max);
    let mut by_id = HashMap::new();
    for id in items.iter().filter_map(|item| item.file) {
        if by_id.contains_key(&id) {
            continue;
        }
        let file = require_access(caller, files::get(tx, id).await?, Operation::Change)?;
        file.state().check_accepts_version()?;
        let version_count = versions::count(tx, id, version_count_max).await?;
        by_id.insert(id, VersionedFile { category: file.category, owner_id: file.owner_id, version_count });
    }
    let owners = by_id.values().map(|file| &file.owner_id).chain([&caller.actor.id]);
    let mut users = HashMap::new();
    for owner_id in owners.collect::<BTreeSet<_>>() {
        if let Some(quota) = user_quotas::get(tx, owner_id).await? {
            users.insert(owner_id.clone(), quota);
        }
    }
    Ok(CheckData { quota: quotas::get(tx).await?, users, files: by_id })
}

/// Compares the items with the limits.
fn compare(app: &App, caller: &Caller, items: &[CheckItem], mut data: CheckData) -> QuotaCheck {
    let policy = &caller.tenant.policy;
    let version_count_max = app.limits.uploads.versions_per_file_max;
    let mut results = Vec::with_capacity(items.len());
    for item in items {
        let mut errors = Vec::new();
        let file = item.file.and_then(|id| data.files.get_mut(&id));
        let category = file.as_ref().map_or_else(|| category_of(policy, item), |file| &file.category);
        add_content_errors(policy, category, item, &data.quota, &mut errors);
        if let Some(file) = file {
            if file.version_count >= version_count_max as usize {
                errors.push(Error::TooManyVersions { version_count_max });
            }
            file.version_count += 1;
        }
        let needed = Needed::of(item);
        add_quota_errors(&data.quota, needed, &mut errors);
        if let Some(quota) = data.user_quota(caller, item) {
            add_user_error(caller, quota, needed, &mut errors);
        }
        results.push(errors);
    }
    let (mut sum, mut user_sums) = (Needed::default(), BTreeMap::<&str, Needed>::new());
    for item in items {
        sum.add(Needed::of(item));
        if let Some(quota) = data.user_quota(caller, item) {
            user_sums.entry(&quota.user_id).or_default().add(Needed::of(item));
        }
    }
    let mut total = Vec::new();
    add_quota_errors(&data.quota, sum, &mut total);
    for (user_id, needed) in user_sums {
        if let Some(quota) = data.users.get(user_id) {
            add_user_error(caller, quota, needed, &mut total);
        }
    }
    let Needed { bytes: total_bytes, file_count } = sum;
    QuotaCheck { items: results, total, total_bytes, file_count, quota: data.quota }
}

/// The space that items need.
#[derive(Debug, Clone, Copy, Default)]
struct Needed {
    bytes: i64,
    /// The number of new files.
    file_count: i64,
}

impl Needed {
    fn of(item: &CheckItem) -> Self {
        Self { bytes: item.size_bytes, file_count: i64::from(item.file.is_none()) }
    }

    fn add(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.file_count += other.file_count;
    }
}

/// Adds the errors of the size limit of the media kind, and of the types that the category allows.
fn add_content_errors(
    policy: &Policy,
    category: &str,
    item: &CheckItem,
    quota: &Quota,
    errors: &mut Vec<Error>,
) {
    let limits = &quota.file_size_max_bytes;
    let kind = (!item.mime_type.is_empty()).then(|| MediaKind::from_mime_type(&item.mime_type));
    let limit_bytes = kind.map_or_else(|| limits.largest(), |kind| limits.for_kind(kind));
    if item.size_bytes > limit_bytes {
        errors.push(Error::file_too_large(kind, item.size_bytes.unsigned_abs(), limit_bytes));
    }
    if kind.is_some()
        && let Err(violations) = policy.allowed_types(category).check(&item.mime_type)
    {
        errors.push(violations.into());
    }
}

/// Adds the errors of bytes and files that do not fit the quota.
fn add_quota_errors(quota: &Quota, needed: Needed, errors: &mut Vec<Error>) {
    let Needed { bytes, file_count } = needed;
    if bytes > quota.available_bytes() {
        errors.push(Error::quota_exceeded(quota, bytes));
    }
    let count = quota.file_count.saturating_add(quota.reserved_file_count).saturating_add(file_count);
    if file_count > 0 && quota.file_count_max > 0 && count > quota.file_count_max {
        errors.push(Error::QuotaFiles { file_count: quota.file_count, file_count_max: quota.file_count_max });
    }
}

/// Adds the error of bytes or files that do not fit the quota of a user.
fn add_user_error(caller: &Caller, quota: &UserQuota, needed: Needed, errors: &mut Vec<Error>) {
    let lacks_bytes = quota.available_bytes().is_some_and(|available| needed.bytes > available);
    if lacks_bytes || quota.exceeds_files(needed.file_count) {
        errors.push(hide_usage(caller, Error::user_quota_exceeded(quota, needed.bytes)));
    }
}
