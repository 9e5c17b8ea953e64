//! What a client says about a file before its bytes, and everything that can be wrong with it.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    clock::Timestamp,
    digest::{Digest, Hasher},
    file::{EntityRef, Visibility},
    file_fields as fields,
    ids::{FileId, RequestId},
    imported::Imported,
    media_type::DECLARED_CHARACTERS_MAX,
    policy::{Policy, TakenTypes},
    text::{self, EXTERNAL_ID_CHARACTERS_MAX},
    violations::Violations,
};

/// The most entities that one upload can be attached to.
pub const ATTACHMENTS_MAX: usize = 100;
/// The longest type or field name of an entity, in characters.
pub const ENTITY_NAME_CHARACTERS_MAX: usize = 64;

/// A spec as it came in, with nothing checked but the shape.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs, reason = "the fields are those of the contract's UploadSpec, explained there")]
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
    /// Where it comes from, if it is imported.
    pub imported: Option<Imported>,
    /// What could not even be read; it is reported with the rest.
    pub unreadable: Violations,
}

/// A spec that holds, with the policy's defaults filled in. An upload that can be resumed keeps it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of the contract's UploadSpec, explained there")]
pub struct CheckedSpec {
    pub name: String,
    pub declared_mime_type: String,
    pub size_bytes: Option<u64>,
    pub sha256: Option<Digest>,
    pub category: String,
    pub title: String,
    pub description: String,
    pub tags: Vec<String>,
    pub metadata: Map<String, Value>,
    pub attachments: Vec<EntityRef>,
    /// The file that these bytes are a version of; its record stays as it is, and none of it is said here.
    pub file: Option<FileId>,
    /// The etag that the file must have; empty for any.
    pub if_etag: String,
    pub change_description: String,
    pub expire_time: Option<Timestamp>,
    pub retain_until_time: Option<Timestamp>,
    pub retention_days: Option<u32>,
    pub visibility: Visibility,
    pub readers: Vec<String>,
    /// What it is called where its type is judged: a version is called as its file.
    pub judged_name: String,
    /// What its category takes.
    pub types: TakenTypes,
    /// Category and visibility as they were said, without the policy's defaults, which may change before a retry.
    pub said: (String, Option<Visibility>),
    pub request_id: Option<RequestId>,
    /// Where it comes from, if it is imported.
    #[serde(default)]
    pub imported: Option<Imported>,
}

impl UploadSpec {
    /// Checks everything against the policy and reports all that is wrong together.
    pub fn check(mut self, policy: &Policy, now: Timestamp) -> Result<CheckedSpec, Violations> {
        if !self.file_id.is_empty() {
            return self.check_version();
        }
        let mut wrong = std::mem::take(&mut self.unreadable);
        fields::check_name("spec.name", &self.name, policy, &mut wrong);
        let size_bytes = self.check_size(&mut wrong);
        let sha256 =
            self.sha256.as_deref().and_then(|raw| wrong.take("spec.sha256", Digest::from_slice(raw)));
        let tags = fields::check_tags("spec.tags", &self.tags, &mut wrong);
        self.check_texts(&mut wrong);
        self.check_attachments(&mut wrong);
        self.check_times(now, &mut wrong);
        if !self.if_etag.is_empty() {
            wrong.add("spec.if_etag", "requires file_id; a new file has no etag");
        }
        if let Some(imported) = &self.imported {
            imported.check(now, &mut wrong);
        }
        let request_id = request_id("spec.request_id", &self.request_id, &mut wrong);

        let said_category = self.category.clone();
        let category = if self.category.is_empty() { policy.category_default.clone() } else { self.category };
        let rules = policy.categories.get(&category);
        fields::check_category("spec.category", &category, policy, &mut wrong);
        wrong.clone().into_result()?;
        let Some(rules) = rules else { return Err(wrong) };

        let mut attachments = self.attachments;
        attachments.sort();
        attachments.dedup();
        Ok(CheckedSpec {
            readers: policy.readers(&category, &attachments),
            types: policy.taken_types(&category),
            said: (said_category, self.visibility),
            visibility: self.visibility.unwrap_or(rules.visibility),
            judged_name: self.name.clone(),
            name: self.name,
            declared_mime_type: self.mime_type,
            size_bytes,
            sha256,
            category,
            title: self.title,
            description: self.description,
            tags,
            metadata: self.metadata,
            attachments,
            file: None,
            if_etag: String::new(),
            change_description: self.change_description,
            expire_time: self.expire_time,
            retain_until_time: self.retain_until_time,
            retention_days: u32::try_from(self.retention_days).ok().filter(|days| *days > 0),
            request_id,
            imported: self.imported,
        })
    }

    /// A version has no record of its own: what would be ignored is refused.
    fn check_version(mut self) -> Result<CheckedSpec, Violations> {
        let mut wrong = std::mem::take(&mut self.unreadable);
        let file = wrong.take("spec.file_id", self.file_id.parse::<FileId>().map_err(|_| "must be a UUID"));
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
                wrong.add(
                    field,
                    "belongs to the file and not to its version; leave it out and use UpdateFile",
                );
            }
        }
        let size_bytes = self.check_size(&mut wrong);
        let sha256 =
            self.sha256.as_deref().and_then(|raw| wrong.take("spec.sha256", Digest::from_slice(raw)));
        self.check_texts(&mut wrong);
        let request_id = request_id("spec.request_id", &self.request_id, &mut wrong);
        wrong.into_result()?;
        Ok(CheckedSpec {
            readers: Vec::new(),
            visibility: Visibility::Owner,
            // Its file decides.
            types: TakenTypes::any(),
            said: (String::new(), None),
            judged_name: String::new(),
            name: self.name,
            declared_mime_type: self.mime_type,
            size_bytes,
            sha256,
            category: self.category,
            title: self.title,
            description: self.description,
            tags: self.tags,
            metadata: self.metadata,
            attachments: self.attachments,
            file,
            if_etag: self.if_etag,
            change_description: self.change_description,
            expire_time: None,
            retain_until_time: None,
            retention_days: None,
            request_id,
            imported: self.imported,
        })
    }

    fn check_size(&self, wrong: &mut Violations) -> Option<u64> {
        let size = self.size_bytes?;
        wrong.take("spec.size_bytes", u64::try_from(size).map_err(|_| "must not be negative"))
    }

    fn check_texts(&self, wrong: &mut Violations) {
        wrong.take("spec.mime_type", text::optional_line(&self.mime_type, DECLARED_CHARACTERS_MAX));
        fields::check_change_description("spec.change_description", &self.change_description, wrong);
        fields::check_title("spec.title", &self.title, wrong);
        fields::check_description("spec.description", &self.description, wrong);
        fields::check_metadata("spec.metadata", &self.metadata, wrong);
    }

    fn check_attachments(&self, wrong: &mut Violations) {
        if self.attachments.len() > ATTACHMENTS_MAX {
            wrong.add("spec.attachments", format!("must be at most {ATTACHMENTS_MAX}"));
            return;
        }
        for (index, entity) in self.attachments.iter().enumerate() {
            check_entity(&format!("spec.attachments[{index}]"), entity, wrong);
        }
    }

    fn check_times(&self, now: Timestamp, wrong: &mut Violations) {
        fields::check_expire_time("spec.expire_time", self.expire_time, now, wrong);
        if !(0..=fields::RETENTION_DAYS_MAX).contains(&self.retention_days) {
            wrong.add(
                "spec.retention_days",
                format!("must be from 0 (never) to {}", fields::RETENTION_DAYS_MAX),
            );
            return;
        }
        let until = self.retain_until_time;
        fields::check_retain_until_time("spec.retain_until_time", until, now, wrong);
        fields::check_end("spec.expire_time", self.expire_time, until, wrong);
        let deletion_time = (self.retention_days > 0)
            .then(|| now.checked_add_signed(TimeDelta::days(self.retention_days.into())))
            .flatten();
        fields::check_end("spec.retention_days", deletion_time, until, wrong);
    }
}

impl CheckedSpec {
    /// What stands for this upload when its request id comes again: everything said about the file, who said it, and
    /// its bytes.
    pub fn fingerprint(&self, actor_id: &str, content: Digest) -> Digest {
        let mut hasher = Hasher::default();
        for field in
            [actor_id, &self.name, &self.declared_mime_type, &self.said.0, &self.title, &self.description]
        {
            hasher.field(field.as_bytes());
        }
        let rest = serde_json::json!([
            self.tags,
            self.metadata,
            self.attachments,
            self.expire_time,
            self.retain_until_time,
            self.retention_days,
            self.said.1,
        ]);
        hasher.field(rest.to_string().as_bytes());
        hasher.field(self.change_description.as_bytes());
        if let Some(file) = self.file {
            hasher.field(file.as_uuid().as_bytes());
            hasher.field(self.if_etag.as_bytes());
        }
        hasher.field(content.as_bytes());
        hasher.finish()
    }
}

/// Checks an entity reference under the given field path.
pub fn check_entity(field: &str, entity: &EntityRef, wrong: &mut Violations) {
    let is_name = |text: &str| {
        !text.is_empty()
            && text.len() <= ENTITY_NAME_CHARACTERS_MAX
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    if !is_name(&entity.entity_type) {
        wrong.add(format!("{field}.type"), "must be 1 to 64 characters of a-z, 0-9 and _");
    }
    wrong.take(&format!("{field}.id"), text::line(&entity.entity_id, EXTERNAL_ID_CHARACTERS_MAX));
    wrong.take(&format!("{field}.field"), text::optional_line(&entity.field, ENTITY_NAME_CHARACTERS_MAX));
}

/// Reads a request id; empty means none.
pub fn request_id(field: &str, text: &str, wrong: &mut Violations) -> Option<RequestId> {
    if text.is_empty() {
        return None;
    }
    wrong.take(field, text.parse::<RequestId>().map_err(|_| "must be a UUID, or empty"))
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

    #[test]
    fn a_name_is_enough() {
        let checked = check(spec()).unwrap();
        assert_eq!(checked.category, "media_resource");
        assert_eq!(checked.visibility, Visibility::Organization);
    }

    #[test]
    fn everything_wrong_is_reported_together() {
        let bad = UploadSpec {
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
        let fields: Vec<String> = check(bad).unwrap_err().iter().map(|wrong| wrong.field.clone()).collect();
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
    fn a_file_that_must_be_kept_longer_than_it_lives_is_refused_with_the_reason() {
        let until = Timestamp::default() + TimeDelta::days(10);
        let kept = UploadSpec { retain_until_time: Some(until), ..spec() };
        assert_eq!(check(kept.clone()).unwrap().retain_until_time, Some(until));
        assert!(check(UploadSpec { retention_days: 10, expire_time: Some(until), ..kept.clone() }).is_ok());
        let early = Timestamp::default() + TimeDelta::days(9);
        let wrong = UploadSpec { retention_days: 9, expire_time: Some(early), ..kept.clone() };
        let wrong = check(wrong).unwrap_err();
        let fields: Vec<&str> = wrong.iter().map(|wrong| wrong.field.as_str()).collect();
        assert_eq!(fields, ["spec.expire_time", "spec.retention_days"]);
        assert!(
            wrong.iter().all(|wrong| wrong.description.contains("before its retain_until_time 1970-01-11"))
        );
        let past = UploadSpec { retain_until_time: Some(Timestamp::default()), ..spec() };
        assert_eq!(check(past).unwrap_err().iter().next().unwrap().field, "spec.retain_until_time");
    }

    #[test]
    fn a_version_says_nothing_about_its_file_and_every_such_word_is_named() {
        let file_id = "0193a7a0-0000-7000-8000-000000000000".to_owned();
        let version = UploadSpec { file_id, mime_type: "text/plain".into(), ..UploadSpec::default() };
        let checked = check(version.clone()).unwrap();
        assert_eq!(checked.file.unwrap().to_string(), version.file_id);
        let bad = UploadSpec {
            file_id: "7".into(),
            name: "a".into(),
            tags: vec!["b".into()],
            retention_days: 3,
            visibility: Some(Visibility::Public),
            change_description: "two\nlines".into(),
            ..version
        };
        let fields: Vec<String> = check(bad).unwrap_err().iter().map(|wrong| wrong.field.clone()).collect();
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
    fn what_could_not_be_read_is_reported_with_the_rest() {
        let bad = UploadSpec {
            name: String::new(),
            unreadable: Violations::one("spec.visibility", "is not a known visibility"),
            ..spec()
        };
        let fields: Vec<String> = check(bad).unwrap_err().iter().map(|wrong| wrong.field.clone()).collect();
        assert_eq!(fields, ["spec.visibility", "spec.name"]);
    }

    #[test]
    fn metadata_may_speak_of_nul_but_not_contain_it() {
        let with = |text: &str| UploadSpec {
            metadata: Map::from_iter([("note".to_owned(), Value::from(text))]),
            ..spec()
        };
        assert!(check(with("\\u0000")).is_ok());
        assert!(check(with("a\0b")).is_err());
    }

    #[test]
    fn the_fingerprint_tells_payloads_apart() {
        let content = Digest::of(b"bytes");
        let original = check(spec()).unwrap();
        let renamed = check(UploadSpec { name: "other.txt".into(), ..spec() }).unwrap();
        assert_eq!(original.fingerprint("alice", content), original.fingerprint("alice", content));
        assert_ne!(original.fingerprint("alice", content), renamed.fingerprint("alice", content));
        assert_ne!(original.fingerprint("alice", content), original.fingerprint("bob", content));
        assert_ne!(
            original.fingerprint("alice", content),
            original.fingerprint("alice", Digest::of(b"others"))
        );
    }
}
