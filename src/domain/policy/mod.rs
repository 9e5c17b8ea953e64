//! What a tenant allows: a document, shipped as a named preset, copied into the tenant's row at birth and editable after.

pub mod categories;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    file::{EntityRef, File, Visibility},
    media_type::MediaKind,
    principal::group_principal,
    text::extension,
    violations::Violations,
};

const GENERAL: &str = include_str!("general.toml");
const WORKSPACE: &str = include_str!("workspace.toml");
const CRM: &str = include_str!("crm.toml");
const EDUCATION: &str = include_str!("education.toml");
const IMAGES: &str = include_str!("images.toml");

/// The names of the presets that are shipped.
pub const PRESETS: [&str; 5] = ["general", "workspace", "crm", "education", "images"];

/// The kind of entity that names a class, whose group may read what is attached to it.
const CLASS: &str = "class";

/// The rules of one tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The preset it came from.
    pub name: String,
    /// The category of a file whose upload names none.
    pub category_default: String,
    /// Whether bytes must be scanned before anyone reads them.
    pub scan: ScanRule,
    /// Who may change and delete a file.
    pub write: WriteRule,
    /// The only media types that are taken, where the category names none; empty means any.
    pub types: Vec<String>,
    /// Extensions that are refused, in lower case without the dot.
    pub blocked_extensions: Vec<String>,
    /// Whether a file that no entity uses is an orphan once it is old enough.
    pub unattached_are_orphans: bool,
    /// What is made of an image without being asked.
    pub variants: VariantRule,
    /// What ends a file's life besides its owner.
    pub retention: RetentionRule,
    /// The quota that a tenant is born with.
    pub quota: QuotaTerms,
    /// What happens to deleted files.
    pub trash: TrashRule,
    /// The categories, by name.
    pub categories: BTreeMap<String, Category>,
}

/// Whether bytes must be scanned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScanRule {
    /// Never, also where there is a scanner.
    NotRequired,
    /// Where a scanner is configured.
    WhereConfigured,
    /// Always; without a scanner uploads are refused.
    Required,
}

/// Who may change and delete a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WriteRule {
    /// Its owner and the tenant's admins.
    OwnerAndAdmins,
    /// Every member of the tenant who sees it.
    Members,
}

/// What is made of an image when it comes in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VariantRule {
    /// Nothing.
    None,
    /// These variants, by name.
    Always(Vec<String>),
    /// What the upload asks for.
    ByRequest,
    /// Nothing; only its width and height are read.
    DimensionsOnly,
}

/// What ends a file's life besides its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetentionRule {
    /// Nothing.
    None,
    /// The rules of compliance for its category.
    AsComplianceSays,
    /// Its `expire_time`.
    ExpireTime,
}

/// The quota that a tenant is born with; also the operator's first ceiling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuotaTerms {
    /// Bytes in all.
    pub limit_bytes: i64,
    /// Files in all; 0 means no limit.
    pub file_count_max: i64,
    /// The warning threshold in percent.
    pub warning_percent: i16,
    /// The critical threshold in percent.
    pub critical_percent: i16,
    /// The largest file per kind.
    pub file_size_max_bytes: FileSizeLimits,
}

/// The largest file per media kind, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "one field per media kind")]
pub struct FileSizeLimits {
    pub image: i64,
    pub video: i64,
    pub audio: i64,
    pub document: i64,
    pub other: i64,
}

impl FileSizeLimits {
    /// No limit at all.
    pub const NONE: Self =
        Self { image: i64::MAX, video: i64::MAX, audio: i64::MAX, document: i64::MAX, other: i64::MAX };

    /// The limit for one kind.
    pub fn of(&self, kind: MediaKind) -> i64 {
        match kind {
            MediaKind::Image => self.image,
            MediaKind::Video => self.video,
            MediaKind::Audio => self.audio,
            MediaKind::Document => self.document,
            MediaKind::Other => self.other,
        }
    }

    /// The largest of them: what a file may have whose kind is not known yet.
    pub fn largest(&self) -> i64 {
        MediaKind::ALL.iter().map(|kind| self.of(*kind)).max().unwrap_or_default()
    }
}

/// What happens to deleted files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrashRule {
    /// How long they stay; 0 means that deleting purges.
    pub days: u32,
    /// Whether they count against the quota while they are there.
    pub counts_against_quota: bool,
}

/// The rules of one category.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Category {
    /// Who sees its files, where the upload does not say.
    pub visibility: Visibility,
    /// Who sees them besides.
    #[serde(default)]
    pub readers: ReaderRule,
    /// The only media types that it takes; empty means those of the policy.
    #[serde(default)]
    pub types: Vec<String>,
}

/// Who sees a category's files besides what the visibility says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReaderRule {
    /// Nobody.
    #[default]
    None,
    /// The members of every class that the file is attached to.
    AttachedClasses,
}

/// The only media types that a category takes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenTypes {
    category: String,
    /// Empty means any.
    types: Vec<String>,
}

impl TakenTypes {
    /// Any type at all.
    pub fn any() -> Self {
        Self::default()
    }

    /// Whether every type is taken.
    pub fn is_any(&self) -> bool {
        self.types.is_empty()
    }

    /// Whether files of this type are taken.
    ///
    /// # Errors
    /// With what the bytes are and what would be taken.
    pub fn check(&self, judged: &str) -> Result<(), Violations> {
        if self.is_any() || self.types.iter().any(|taken| taken == judged) {
            return Ok(());
        }
        let taken = self.types.join(", ");
        let wrong = format!("the bytes are {judged}; the category `{}` takes only {taken}", self.category);
        Err(Violations::one("spec.mime_type", wrong))
    }
}

/// No preset has this name.
#[derive(Debug, thiserror::Error)]
#[error("there is no preset `{0}`; the presets are {presets}", presets = PRESETS.join(", "))]
pub struct UnknownPreset(pub String);

impl Policy {
    /// The shipped preset of this name.
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

    /// Whether a file of this name is refused for its extension; answers the extension.
    pub fn blocked_extension(&self, name: &str) -> Option<String> {
        extension(name).filter(|extension| self.blocked_extensions.contains(extension))
    }

    /// What a category takes: its own types, or those of the policy.
    pub fn taken_types(&self, category: &str) -> TakenTypes {
        let types = match self.categories.get(category) {
            Some(Category { types, .. }) if !types.is_empty() => types,
            _ => &self.types,
        };
        TakenTypes { category: category.to_owned(), types: types.clone() }
    }

    /// Who reads a file besides owner and visibility, as principals, without duplicates.
    pub fn readers(&self, category: &str, attachments: &[EntityRef]) -> Vec<String> {
        match self.categories.get(category).map(|category| category.readers).unwrap_or_default() {
            ReaderRule::None => Vec::new(),
            ReaderRule::AttachedClasses => classes(attachments),
        }
    }

    /// Who sees a file once it is in another category, where nobody says it. What had the visibility of its category gets that
    /// of its new one. Where something else had been said, the narrower of the two holds: what was hidden stays hidden, and what
    /// was shown to more than the new category shows is shown no longer.
    pub fn visibility_in(&self, category: &str, file: &File) -> Visibility {
        let default_of = |category: &str| self.categories.get(category).map(|rules| rules.visibility);
        let Some(default) = default_of(category) else { return file.visibility };
        match default_of(&file.category) == Some(file.visibility) {
            true => default,
            false => default.min(file.visibility),
        }
    }
}

/// The classes that a file is attached to, as principals, in order and without duplicates.
pub fn classes(attachments: &[EntityRef]) -> Vec<String> {
    let of_classes = attachments.iter().filter(|entity| entity.entity_type == CLASS);
    let mut classes: Vec<String> = of_classes.map(|entity| group_principal(&entity.entity_id)).collect();
    classes.sort();
    classes.dedup();
    classes
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
