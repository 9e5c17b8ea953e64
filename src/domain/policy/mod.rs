//! Policies: the rules of a tenant. A policy is created from a named preset, stored in the tenant's row, and
//! editable.

pub mod categories;
mod links;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::links::LinkRules;
pub use super::file_size_limits::FileSizeLimits;
use super::{
    file::{EntityRef, File, Visibility},
    media_names::is_same_type,
    principal::group_principal,
    quota::default_pending_deletion_multiple,
    role::Role,
    text::extension,
    violations::Violations,
};

const GENERAL: &str = include_str!("general.toml");
const WORKSPACE: &str = include_str!("workspace.toml");
const CRM: &str = include_str!("crm.toml");
const EDUCATION: &str = include_str!("education.toml");
const IMAGES: &str = include_str!("images.toml");

/// The names of the presets.
pub const PRESETS: [&str; 5] = ["general", "workspace", "crm", "education", "images"];

/// The entity type of classes. The group of a class may read files that are attached to it.
const CLASS: &str = "class";

/// The policy of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The name of the preset that it was created from.
    pub name: String,
    /// The category of files whose upload does not name one.
    pub category_default: String,
    /// Whether files must be scanned before they are readable.
    pub scan: ScanRule,
    /// Who may change and delete files.
    pub write: WriteRule,
    /// The allowed media types of categories that do not define their own; empty means any.
    pub types: Vec<String>,
    /// Blocked file extensions, in lower case and without the dot.
    pub blocked_extensions: Vec<String>,
    /// Whether old files without attachments are orphans.
    pub unattached_are_orphans: bool,
    /// The variants that are created for images.
    pub variants: VariantRule,
    /// The rule that deletes files automatically.
    pub retention: RetentionRule,
    /// The initial quota of a tenant.
    pub quota: InitialQuota,
    pub trash: TrashRule,
    /// How long callers may retain files. Omitted from the stored policy if it is the default, so that
    /// releases without this field can read the policy.
    #[serde(default, skip_serializing_if = "RetainRule::is_default")]
    pub retain: RetainRule,
    /// The categories, by name.
    pub categories: BTreeMap<String, Category>,
}

/// When files must be scanned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScanRule {
    /// Never, even if a scanner is configured.
    NotRequired,
    /// If a scanner is configured.
    WhereConfigured,
    /// Always. Uploads are rejected if no scanner is configured.
    Required,
}

/// Who may change and delete files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WriteRule {
    /// The owner of the file and the tenant's admins.
    OwnerAndAdmins,
    /// All members of the tenant who can see the file.
    Members,
}

/// The variants that are created for uploaded images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VariantRule {
    None,
    /// The variants with these names.
    Always(Vec<String>),
    /// The variants that the upload requests.
    ByRequest,
    /// No variants; only the width and height are read.
    DimensionsOnly,
}

/// The rule that deletes files automatically.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetentionRule {
    None,
    /// The compliance rules for the category.
    Compliance,
    /// The `expire_time` of the file.
    ExpireTime,
}

/// The initial quota of a tenant. It is also the initial ceiling, which only the operator can change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitialQuota {
    /// The limit on the total size of files, in bytes.
    pub limit_bytes: i64,
    /// The maximum number of files; 0 means no limit.
    pub file_count_max: i64,
    /// The warning threshold, in percent of the limit.
    pub warning_percent: i16,
    /// The critical threshold, in percent of the limit.
    pub critical_percent: i16,
    /// The maximum file size per media kind.
    pub file_size_max_bytes: FileSizeLimits,
    /// The maximum of the bytes that are pending deletion, as a multiple of the limit. Omitted from
    /// the stored policy if it is the default, so that releases without this field can read the policy.
    #[serde(
        default = "default_pending_deletion_multiple",
        skip_serializing_if = "is_default_pending_deletion_multiple"
    )]
    pub pending_deletion_multiple: i64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde requires")]
fn is_default_pending_deletion_multiple(multiple: &i64) -> bool {
    *multiple == default_pending_deletion_multiple()
}

/// The rules of the trash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrashRule {
    /// The number of days that deleted files remain in the trash; 0 means that deleting a file purges it.
    pub days: u32,
    /// Whether files in the trash count against the quota.
    pub counts_against_quota: bool,
}

/// The maximum number of days between now and a `retain_until_time` that a caller sets; 0 means that callers may
/// not set it. A retention binds everyone: only an approved erasure allows the file to be purged before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetainRule {
    /// For admins of the tenant.
    pub admin_days_max: u32,
    /// For all other callers, and only on their own files.
    pub member_days_max: u32,
}

/// The most days that ten calendar years have.
const TEN_YEARS_DAYS: u32 = 3_653;

impl Default for RetainRule {
    fn default() -> Self {
        Self { admin_days_max: TEN_YEARS_DAYS, member_days_max: 0 }
    }
}

impl RetainRule {
    /// Returns the limit for callers with a role.
    pub fn days_max(&self, role: Role) -> u32 {
        match role {
            Role::Admin => self.admin_days_max,
            Role::Manager | Role::Member => self.member_days_max,
        }
    }

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde requires")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The rules of a category.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Category {
    /// The visibility of files whose upload does not specify one.
    pub visibility: Visibility,
    /// Who may read the files in addition to the visibility.
    #[serde(default)]
    pub readers: ReaderRule,
    /// The allowed media types; empty means those of the policy.
    #[serde(default)]
    pub types: Vec<String>,
    /// The rules for links; `None` means those of the preset. Omitted from the stored policy then, so that releases
    /// without this field can read the policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub links: Option<LinkRules>,
}

/// Who may read the files of a category in addition to the visibility.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReaderRule {
    /// No other readers.
    #[default]
    None,
    /// The members of all classes that the file is attached to.
    AttachedClasses,
}

/// The allowed media types of a category.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllowedTypes {
    category: String,
    /// Empty means any.
    types: Vec<String>,
}

impl AllowedTypes {
    /// Returns whether all types are allowed.
    pub fn is_any(&self) -> bool {
        self.types.is_empty()
    }

    /// Checks that files of this type are allowed. Aliases of a type are the same type.
    ///
    /// # Errors
    /// Returns a violation that names the type of the file and the allowed types.
    pub fn check(&self, mime_type: &str) -> Result<(), Violations> {
        if self.is_any() || self.types.iter().any(|allowed| is_same_type(allowed, mime_type)) {
            return Ok(());
        }
        let allowed = self.types.join(", ");
        let problem =
            format!("file is of type {mime_type}; category `{}` allows only {allowed}", self.category);
        Err(Violations::one("spec.mime_type", problem))
    }
}

/// No preset with this name exists.
#[derive(Debug, thiserror::Error)]
#[error("no preset is named `{0}`; the presets are {presets}", presets = PRESETS.join(", "))]
pub struct UnknownPreset(pub String);

impl Policy {
    /// Returns the preset with this name.
    ///
    /// # Errors
    /// Returns [`UnknownPreset`] if it does not exist.
    pub fn preset(name: &str) -> Result<Self, UnknownPreset> {
        let document = match name {
            "general" => GENERAL,
            "workspace" => WORKSPACE,
            "crm" => CRM,
            "education" => EDUCATION,
            "images" => IMAGES,
            other => return Err(UnknownPreset(other.to_owned())),
        };
        toml::from_str(document).map_err(|_| UnknownPreset(name.to_owned()))
    }

    /// Returns the extension of a file name, if it is blocked.
    pub fn blocked_extension(&self, name: &str) -> Option<String> {
        extension(name).filter(|extension| self.blocked_extensions.contains(extension))
    }

    /// Returns the allowed types of a category: its own, or those of the policy.
    pub fn allowed_types(&self, category: &str) -> AllowedTypes {
        let types = match self.categories.get(category) {
            Some(Category { types, .. }) if !types.is_empty() => types,
            _ => &self.types,
        };
        AllowedTypes { category: category.to_owned(), types: types.clone() }
    }

    /// Returns the principals that may read a file in addition to its owner and visibility, without
    /// duplicates.
    pub fn readers(&self, category: &str, attachments: &[EntityRef]) -> Vec<String> {
        match self.categories.get(category).map(|category| category.readers).unwrap_or_default() {
            ReaderRule::None => Vec::new(),
            ReaderRule::AttachedClasses => class_principals(attachments),
        }
    }

    /// Returns the visibility of a file after it is moved to another category, if the update does not specify
    /// one.
    ///
    /// A file with the default visibility of its category gets that of the new category. For other files, the
    /// narrower of the file's visibility and the default of the new category applies.
    pub fn visibility_in_category(&self, category: &str, file: &File) -> Visibility {
        let default_visibility = |category: &str| self.categories.get(category).map(|rules| rules.visibility);
        let Some(default) = default_visibility(category) else { return file.visibility };
        match default_visibility(&file.category) == Some(file.visibility) {
            true => default,
            false => default.min(file.visibility),
        }
    }
}

/// Returns the principals of the classes that a file is attached to, sorted and without duplicates.
pub fn class_principals(attachments: &[EntityRef]) -> Vec<String> {
    let class_entities = attachments.iter().filter(|entity| entity.entity_type == CLASS);
    let mut classes: Vec<String> = class_entities.map(|entity| group_principal(&entity.entity_id)).collect();
    classes.sort();
    classes.dedup();
    classes
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
