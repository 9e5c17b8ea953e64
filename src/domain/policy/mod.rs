//! What a tenant allows: a document, shipped as a named preset, copied into the tenant's row at birth and editable after.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    file::{EntityRef, Visibility},
    media_type::MediaKind,
    principal::group_principal,
    text::extension,
};

const GENERAL: &str = include_str!("general.toml");
const EDUCATION: &str = include_str!("education.toml");

/// The names of the presets that are shipped.
pub const PRESETS: [&str; 2] = ["general", "education"];

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
    /// Extensions that are refused, in lower case without the dot.
    pub blocked_extensions: Vec<String>,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Category {
    /// Who sees its files, where the upload does not say.
    pub visibility: Visibility,
    /// Who sees them besides.
    #[serde(default)]
    pub readers: ReaderRule,
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

/// No preset has this name.
#[derive(Debug, thiserror::Error)]
#[error("there is no preset `{0}`; the presets are general, education")]
pub struct UnknownPreset(pub String);

impl Policy {
    /// The shipped preset of this name.
    pub fn preset(name: &str) -> Result<Self, UnknownPreset> {
        let document = match name {
            "general" => GENERAL,
            "education" => EDUCATION,
            other => return Err(UnknownPreset(other.to_owned())),
        };
        toml::from_str(document).map_err(|_| UnknownPreset(name.to_owned()))
    }

    /// Whether a file of this name is refused for its extension; answers the extension.
    pub fn blocked_extension(&self, name: &str) -> Option<String> {
        extension(name).filter(|extension| self.blocked_extensions.contains(extension))
    }

    /// Who reads a file besides owner and visibility, as principals, without duplicates.
    pub fn readers(&self, category: &str, attachments: &[EntityRef]) -> Vec<String> {
        let rule = self.categories.get(category).map(|category| category.readers).unwrap_or_default();
        let mut readers: Vec<String> = match rule {
            ReaderRule::None => Vec::new(),
            ReaderRule::AttachedClasses => attachments
                .iter()
                .filter(|entity| entity.entity_type == CLASS)
                .map(|entity| group_principal(&entity.entity_id))
                .collect(),
        };
        readers.sort();
        readers.dedup();
        readers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_preset_reads() {
        for name in PRESETS {
            let policy = Policy::preset(name).unwrap();
            assert_eq!(policy.name, name);
            assert!(policy.categories.contains_key(&policy.category_default));
        }
        assert!(Policy::preset("nonsense").is_err());
    }

    #[test]
    fn a_policy_survives_its_way_through_the_tenant_row() {
        let policy = Policy::preset("education").unwrap();
        let row = serde_json::to_value(&policy).unwrap();
        assert_eq!(serde_json::from_value::<Policy>(row).unwrap(), policy);
    }

    #[test]
    fn education_shows_a_lesson_to_the_class_it_is_attached_to() {
        let policy = Policy::preset("education").unwrap();
        let class = EntityRef { entity_type: "class".into(), entity_id: "7a".into(), field: String::new() };
        let course = EntityRef { entity_type: "course".into(), ..class.clone() };
        assert_eq!(policy.readers("educational_content", &[course, class.clone()]), ["group:7a"]);
        assert!(policy.readers("assessment", &[class]).is_empty());
    }

    #[test]
    fn archives_are_blocked_in_education_only() {
        assert!(Policy::preset("education").unwrap().blocked_extension("a.ZIP").is_some());
        assert!(Policy::preset("general").unwrap().blocked_extension("a.ZIP").is_none());
        assert!(Policy::preset("general").unwrap().blocked_extension("a.exe").is_some());
    }
}
