//! The spec that a client sends before the bytes of a file, and its validation.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    clock::Timestamp,
    digest::{Digest, Hasher},
    file::{EntityRef, Visibility},
    file_fields as fields,
    ids::{FileId, RequestId},
    import_origin::ImportOrigin,
    media_type::DECLARED_CHARACTERS_MAX,
    policy::Policy,
    text::{self, EXTERNAL_ID_CHARACTERS_MAX},
    upload_destination::{ContentRules, Destination, NewFile, NewVersion},
    violations::Violations,
};

/// The maximum number of entities that one upload can be attached to.
pub const ATTACHMENTS_MAX: usize = 100;
/// The maximum length of an entity's type or field name in characters.
pub const ENTITY_NAME_CHARACTERS_MAX: usize = 64;

/// An upload spec as received, before validation.
#[derive(Debug, Clone, Default)]
pub struct UploadSpec {
    pub name: String,
    pub mime_type: String,
    pub size_bytes: Option<i64>,
    pub sha256: Option<Vec<u8>>,
    pub category: String,
    pub title: String,
    pub description: String,
    pub tags: Vec<String>,
    pub metadata: Map<String, Value>,
    pub attachments: Vec<EntityRef>,
    pub file_id: String,
    pub if_etag: String,
    pub change_description: String,
    pub expire_time: Option<Timestamp>,
    pub retain_until_time: Option<Timestamp>,
    pub retention_days: i32,
    pub visibility: Option<Visibility>,
    pub request_id: String,
    /// The origin of the file, if it is imported.
    pub import_origin: Option<ImportOrigin>,
    /// Violations found while decoding the request. They are reported together with the others.
    pub parse_violations: Violations,
}

/// A valid spec with the policy's defaults applied.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CheckedSpec {
    pub destination: Destination,
    pub declared_mime_type: String,
    pub size_bytes: Option<u64>,
    pub sha256: Option<Digest>,
    /// The description of the change in this version.
    pub change_description: String,
    pub request_id: Option<RequestId>,
}

/// A valid spec with the rules for its content, which for a new version depend on its file. It is stored with
/// a resumable upload.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ResolvedSpec {
    /// The spec, which does not depend on the file of a version.
    pub checked: CheckedSpec,
    /// The rules of the category of the file.
    pub rules: ContentRules,
}

impl UploadSpec {
    /// Checks the spec against the policy and reports all violations together.
    pub fn check(mut self, policy: &Policy, now: Timestamp) -> Result<CheckedSpec, Violations> {
        if !self.file_id.is_empty() {
            return self.check_version();
        }
        let mut violations = std::mem::take(&mut self.parse_violations);
        self.name = fields::check_name("spec.name", &self.name, policy, &mut violations);
        let size_bytes = self.check_size(&mut violations);
        let sha256 = self
            .sha256
            .as_deref()
            .and_then(|raw| violations.ok_or_add("spec.sha256", Digest::from_slice(raw)));
        let tags = fields::check_tags("spec.tags", &self.tags, &mut violations);
        self.check_descriptive_fields(&mut violations);
        self.check_attachments(&mut violations);
        self.check_times(now, &mut violations);
        if !self.if_etag.is_empty() {
            violations.add("spec.if_etag", "requires file_id; a new file has no etag");
        }
        if let Some(import_origin) = &self.import_origin {
            import_origin.check(now, &mut violations);
        }
        let request_id = parse_request_id("spec.request_id", &self.request_id, &mut violations);

        let requested_category = self.category.clone();
        let category = if self.category.is_empty() { policy.category_default.clone() } else { self.category };
        let rules = policy.categories.get(&category);
        fields::check_category("spec.category", &category, policy, &mut violations);
        violations.clone().into_result()?;
        let Some(rules) = rules else { return Err(violations) };

        let mut attachments = self.attachments;
        attachments.sort();
        attachments.dedup();
        let file = NewFile {
            readers: policy.readers(&category, &attachments),
            requested_category,
            requested_visibility: self.visibility,
            visibility: self.visibility.unwrap_or(rules.visibility),
            name: self.name,
            category,
            title: self.title,
            description: self.description,
            tags,
            metadata: self.metadata,
            attachments,
            expire_time: self.expire_time,
            retain_until_time: self.retain_until_time,
            retention_days: u32::try_from(self.retention_days).ok().filter(|days| *days > 0),
            import_origin: self.import_origin,
        };
        Ok(CheckedSpec {
            destination: Destination::NewFile(Box::new(file)),
            declared_mime_type: self.mime_type,
            size_bytes,
            sha256,
            change_description: self.change_description,
            request_id,
        })
    }

    /// A version does not have its own record, so fields that would be ignored are rejected.
    fn check_version(mut self) -> Result<CheckedSpec, Violations> {
        let mut violations = std::mem::take(&mut self.parse_violations);
        let file = violations
            .ok_or_add("spec.file_id", self.file_id.parse::<FileId>().map_err(|_| "must be a UUID"));
        for (field, is_set) in [
            ("spec.name", !self.name.is_empty()),
            ("spec.category", !self.category.is_empty()),
            ("spec.title", !self.title.is_empty()),
            ("spec.description", !self.description.is_empty()),
            ("spec.tags", !self.tags.is_empty()),
            ("spec.metadata", !self.metadata.is_empty()),
            ("spec.attachments", !self.attachments.is_empty()),
            ("spec.expire_time", self.expire_time.is_some()),
            ("spec.retain_until_time", self.retain_until_time.is_some()),
            ("spec.retention_days", self.retention_days != 0),
            ("spec.visibility", self.visibility.is_some()),
        ] {
            if is_set {
                violations
                    .add(field, "is a property of the file, not of a version; omit it and call UpdateFile");
            }
        }
        let size_bytes = self.check_size(&mut violations);
        let sha256 = self
            .sha256
            .as_deref()
            .and_then(|raw| violations.ok_or_add("spec.sha256", Digest::from_slice(raw)));
        self.check_descriptive_fields(&mut violations);
        let request_id = parse_request_id("spec.request_id", &self.request_id, &mut violations);
        match file {
            Some(file) if violations.is_empty() => Ok(CheckedSpec {
                destination: Destination::NewVersion(NewVersion { file, if_etag: self.if_etag }),
                declared_mime_type: self.mime_type,
                size_bytes,
                sha256,
                change_description: self.change_description,
                request_id,
            }),
            _ => Err(violations),
        }
    }

    fn check_size(&self, violations: &mut Violations) -> Option<u64> {
        let size = self.size_bytes?;
        violations.ok_or_add("spec.size_bytes", u64::try_from(size).map_err(|_| "must not be negative"))
    }

    fn check_descriptive_fields(&self, violations: &mut Violations) {
        violations
            .ok_or_add("spec.mime_type", text::check_optional_line(&self.mime_type, DECLARED_CHARACTERS_MAX));
        fields::check_change_description("spec.change_description", &self.change_description, violations);
        fields::check_title("spec.title", &self.title, violations);
        fields::check_description("spec.description", &self.description, violations);
        fields::check_metadata("spec.metadata", &self.metadata, violations);
    }

    fn check_attachments(&self, violations: &mut Violations) {
        if self.attachments.len() > ATTACHMENTS_MAX {
            let count = self.attachments.len();
            violations
                .add("spec.attachments", format!("has {count} entries; the limit is {ATTACHMENTS_MAX}"));
            return;
        }
        for (index, entity) in self.attachments.iter().enumerate() {
            check_entity(&format!("spec.attachments[{index}]"), entity, violations);
        }
    }

    fn check_times(&self, now: Timestamp, violations: &mut Violations) {
        fields::check_expire_time("spec.expire_time", self.expire_time, now, violations);
        if !(0..=fields::RETENTION_DAYS_MAX).contains(&self.retention_days) {
            violations.add(
                "spec.retention_days",
                format!(
                    "is {}; must be from 0 (never) to {}",
                    self.retention_days,
                    fields::RETENTION_DAYS_MAX
                ),
            );
            return;
        }
        let until = self.retain_until_time;
        fields::check_retain_until_time("spec.retain_until_time", until, now, violations);
        fields::check_end_time("spec.expire_time", self.expire_time, until, violations);
        let deletion_time = (self.retention_days > 0)
            .then(|| now.checked_add_signed(TimeDelta::days(self.retention_days.into())))
            .flatten();
        fields::check_end_time("spec.retention_days", deletion_time, until, violations);
    }
}

impl CheckedSpec {
    /// Returns the fingerprint that identifies the upload under its request id: a digest of the whole
    /// request, the caller, and the content, if its digest is known.
    pub fn fingerprint(&self, actor_id: &str, content: Option<Digest>) -> Digest {
        let mut hasher = Hasher::default();
        hasher.field(actor_id.as_bytes());
        self.destination.add_to_fingerprint(&mut hasher);
        hasher.field(self.declared_mime_type.as_bytes());
        hasher.field(self.change_description.as_bytes());
        hasher.field(content.as_ref().map_or(&[], |content| content.as_bytes()));
        hasher.finish()
    }
}

/// Checks an entity reference and reports violations under the given field path.
pub fn check_entity(field: &str, entity: &EntityRef, violations: &mut Violations) {
    let is_name = |text: &str| {
        !text.is_empty()
            && text.len() <= ENTITY_NAME_CHARACTERS_MAX
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    if !is_name(&entity.entity_type) {
        violations.add(format!("{field}.type"), "must be 1 to 64 characters of a-z, 0-9 and _");
    }
    violations
        .ok_or_add(&format!("{field}.id"), text::check_line(&entity.entity_id, EXTERNAL_ID_CHARACTERS_MAX));
    violations.ok_or_add(
        &format!("{field}.field"),
        text::check_optional_line(&entity.field, ENTITY_NAME_CHARACTERS_MAX),
    );
}

/// Parses a request id. An empty text means none.
pub fn parse_request_id(field: &str, text: &str, violations: &mut Violations) -> Option<RequestId> {
    if text.is_empty() {
        return None;
    }
    violations.ok_or_add(field, text.parse::<RequestId>().map_err(|_| "must be a UUID, or empty"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> UploadSpec {
        UploadSpec { name: "notes.txt".into(), ..UploadSpec::default() }
    }

    fn check(spec: UploadSpec) -> Result<CheckedSpec, Violations> {
        spec.check(&Policy::preset("general").unwrap(), Timestamp::default())
    }

    fn check_file(spec: UploadSpec) -> NewFile {
        match check(spec).unwrap().destination {
            Destination::NewFile(file) => *file,
            Destination::NewVersion(version) => panic!("{version:?}"),
        }
    }

    #[test]
    fn name_alone_is_a_valid_spec() {
        let file = check_file(spec());
        assert_eq!(file.category, "media_resource");
        assert_eq!(file.visibility, Visibility::Organization);
    }

    #[test]
    fn reports_all_violations_together() {
        let invalid = UploadSpec {
            name: "run.EXE".into(),
            size_bytes: Some(-1),
            sha256: Some(vec![1, 2, 3]),
            category: "nonsense".into(),
            tags: vec!["ok".into(), String::new()],
            retention_days: -5,
            expire_time: Some(Timestamp::default()),
            request_id: "42".into(),
            attachments: vec![EntityRef {
                entity_type: "Class".into(),
                entity_id: String::new(),
                field: "".into(),
            }],
            ..spec()
        };
        let fields: Vec<String> =
            check(invalid).unwrap_err().iter().map(|violation| violation.field.clone()).collect();
        for field in [
            "spec.name",
            "spec.size_bytes",
            "spec.sha256",
            "spec.tags[1]",
            "spec.attachments[0].type",
            "spec.attachments[0].id",
            "spec.expire_time",
            "spec.retention_days",
            "spec.request_id",
            "spec.category",
        ] {
            assert!(fields.iter().any(|reported| reported == field), "{field} is missing in {fields:?}");
        }
    }

    #[test]
    fn rejects_expiry_before_required_retention() {
        let until = Timestamp::default() + TimeDelta::days(10);
        let base = UploadSpec { retain_until_time: Some(until), ..spec() };
        assert_eq!(check_file(base.clone()).retain_until_time, Some(until));
        assert!(check(UploadSpec { retention_days: 10, expire_time: Some(until), ..base.clone() }).is_ok());
        let early = Timestamp::default() + TimeDelta::days(9);
        let invalid = UploadSpec { retention_days: 9, expire_time: Some(early), ..base.clone() };
        let violations = check(invalid).unwrap_err();
        let fields: Vec<&str> = violations.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["spec.expire_time", "spec.retention_days"]);
        assert!(
            violations
                .iter()
                .all(|violation| violation.description.contains("before its retain_until_time 1970-01-11"))
        );
        let past = UploadSpec { retain_until_time: Some(Timestamp::default()), ..spec() };
        assert_eq!(check(past).unwrap_err().iter().next().unwrap().field, "spec.retain_until_time");
    }

    #[test]
    fn rejects_file_properties_in_version_spec() {
        let file_id = "0193a7a0-0000-7000-8000-000000000000".to_owned();
        let version = UploadSpec { file_id, mime_type: "text/plain".into(), ..UploadSpec::default() };
        let checked = check(version.clone()).unwrap();
        let Destination::NewVersion(checked) = checked.destination else { panic!("{checked:?}") };
        assert_eq!(checked.file.to_string(), version.file_id);
        let invalid = UploadSpec {
            file_id: "7".into(),
            name: "a".into(),
            tags: vec!["b".into()],
            retention_days: 3,
            visibility: Some(Visibility::Public),
            change_description: "two\nlines".into(),
            ..version
        };
        let fields: Vec<String> =
            check(invalid).unwrap_err().iter().map(|violation| violation.field.clone()).collect();
        assert_eq!(
            fields,
            [
                "spec.file_id",
                "spec.name",
                "spec.tags",
                "spec.retention_days",
                "spec.visibility",
                "spec.change_description"
            ]
        );
    }

    #[test]
    fn reports_decoding_violations_with_the_others() {
        let invalid = UploadSpec {
            name: String::new(),
            parse_violations: Violations::one("spec.visibility", "is not a known visibility"),
            ..spec()
        };
        let fields: Vec<String> =
            check(invalid).unwrap_err().iter().map(|violation| violation.field.clone()).collect();
        assert_eq!(fields, ["spec.visibility", "spec.name"]);
    }

    #[test]
    fn metadata_may_mention_but_not_contain_nul() {
        let with = |text: &str| UploadSpec {
            metadata: Map::from_iter([("note".to_owned(), Value::from(text))]),
            ..spec()
        };
        assert!(check(with("\\u0000")).is_ok());
        assert!(check(with("a\0b")).is_err());
    }

    #[test]
    fn fingerprint_differs_between_payloads() {
        let content = Some(Digest::compute(b"bytes"));
        let original = check(spec()).unwrap();
        let renamed = check(UploadSpec { name: "other.txt".into(), ..spec() }).unwrap();
        assert_eq!(original.fingerprint("alice", content), original.fingerprint("alice", content));
        assert_ne!(original.fingerprint("alice", content), renamed.fingerprint("alice", content));
        assert_ne!(original.fingerprint("alice", content), original.fingerprint("bob", content));
        assert_ne!(
            original.fingerprint("alice", content),
            original.fingerprint("alice", Some(Digest::compute(b"others")))
        );
    }
}
