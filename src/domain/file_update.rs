//! Updates of a file's record. They do not change the content.

use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    clock::Timestamp,
    file::{File, Visibility},
    file_fields as fields,
    policy::Policy,
    violations::Violations,
};

/// New values of a file's record. Absent fields are left unchanged.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct FileUpdate {
    pub name: Option<String>,
    pub title: Option<String>,
    pub description: Option<String>,
    pub tags: Option<Vec<String>>,
    /// Omitted from the serialized payload if absent, so that the digest of a retry matches that of requests
    /// from releases without this field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    pub metadata: Option<Map<String, Value>>,
    pub visibility: Option<Visibility>,
    /// `Some(None)` removes the expiry time.
    pub expire_time: Option<Option<Timestamp>>,
    /// `Some(None)` ends the retention.
    pub retain_until_time: Option<Option<Timestamp>>,
}

impl FileUpdate {
    /// Removes the name if the file has it already. Rules for names change, and a client that sends back what it
    /// read must not rename a file that has an older name, nor be refused.
    #[must_use]
    pub fn without_unchanged_name(mut self, file: &File) -> Self {
        self.name = self.name.filter(|name| *name != file.name);
        self
    }

    /// Validates all fields against the policy, and adds the violations to `violations`. Does not check
    /// whether a new category allows the existing versions of the file.
    #[must_use]
    pub fn check(mut self, policy: &Policy, now: Timestamp, violations: &mut Violations) -> Self {
        self.name = self.name.map(|name| fields::check_name("file.name", &name, policy, violations));
        if let Some(category) = &self.category {
            fields::check_category("file.category", category, policy, violations);
        }
        if let Some(title) = &self.title {
            fields::check_title("file.title", title, violations);
        }
        if let Some(description) = &self.description {
            fields::check_description("file.description", description, violations);
        }
        self.tags = self.tags.map(|tags| fields::check_tags("file.tags", &tags, violations));
        if let Some(metadata) = &self.metadata {
            fields::check_metadata("file.metadata", metadata, violations);
        }
        fields::check_expire_time("file.expire_time", self.expire_time.flatten(), now, violations);
        let until = self.retain_until_time.flatten();
        fields::check_retain_until_time("file.retain_until_time", until, now, violations);
        self
    }

    /// Returns the new category of the file, if the update changes it.
    pub fn new_category(&self, file: &File) -> Option<&str> {
        self.category.as_deref().filter(|category| *category != file.category)
    }

    /// Checks that the updated file would not be deleted before its retention ends. Violations name the
    /// changed field.
    ///
    /// # Errors
    /// Returns the violations, if there are any.
    pub fn check_end_times(&self, file: &File) -> Result<(), Violations> {
        let mut violations = Violations::new();
        let until = self.retain_until_time.unwrap_or(file.retain_until_time);
        if let Some(expire_time) = self.expire_time {
            fields::check_end_time("file.expire_time", expire_time, until, &mut violations);
        } else if self.retain_until_time.is_some() {
            fields::check_end_time("file.retain_until_time", file.expire_time, until, &mut violations);
        }
        if self.retain_until_time.is_some() {
            fields::check_end_time("file.retain_until_time", file.deletion_time, until, &mut violations);
        }
        violations.into_result()
    }

    /// Returns whether the update changes the end of the retention, including its removal.
    pub fn changes_retention(&self, file: &File) -> bool {
        self.retain_until_time.is_some_and(|until| until != file.retain_until_time)
    }

    /// Checks that the update does not retain the file longer than the policy allows. An update that shortens
    /// the retention is allowed, even if its new end is beyond the limit.
    pub fn check_retain_limit(
        &self,
        file: &File,
        days_max: u32,
        now: Timestamp,
        violations: &mut Violations,
    ) {
        if self.changes_retention(file) && !self.shortens_retention(file, now) {
            let until = self.retain_until_time.flatten();
            fields::check_retain_limit("file.retain_until_time", until, days_max, now, violations);
        }
    }

    /// Returns whether the update shortens a retention that has not ended.
    pub fn shortens_retention(&self, file: &File, now: Timestamp) -> bool {
        match (self.retain_until_time, file.retain_until_time) {
            (Some(new), Some(old)) => now < old && new.is_none_or(|new| new < old),
            _ => false,
        }
    }

    /// Returns the names of the fields that the update sets.
    pub fn field_names(&self) -> Vec<&'static str> {
        let set = [
            ("name", self.name.is_some()),
            ("title", self.title.is_some()),
            ("description", self.description.is_some()),
            ("tags", self.tags.is_some()),
            ("category", self.category.is_some()),
            ("metadata", self.metadata.is_some()),
            ("visibility", self.visibility.is_some()),
            ("expire_time", self.expire_time.is_some()),
            ("retain_until_time", self.retain_until_time.is_some()),
        ];
        set.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name).collect()
    }

    /// Returns the file with the new values.
    pub fn apply(self, file: File) -> File {
        File {
            name: self.name.unwrap_or(file.name),
            title: self.title.unwrap_or(file.title),
            description: self.description.unwrap_or(file.description),
            tags: self.tags.unwrap_or(file.tags),
            category: self.category.unwrap_or(file.category),
            metadata: self.metadata.unwrap_or(file.metadata),
            visibility: self.visibility.unwrap_or(file.visibility),
            expire_time: self.expire_time.unwrap_or(file.expire_time),
            retain_until_time: self.retain_until_time.unwrap_or(file.retain_until_time),
            ..file
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_all_violations_of_an_update() {
        let update = FileUpdate {
            name: Some("run.exe".to_owned()),
            title: Some("two\nlines".to_owned()),
            tags: Some(vec![String::new()]),
            category: Some("nonsense".to_owned()),
            metadata: Some(Map::from_iter([("a\0".to_owned(), Value::Null)])),
            expire_time: Some(Some(Timestamp::default())),
            ..FileUpdate::default()
        };
        let mut violations = Violations::new();
        let _ = update.check(&Policy::preset("general").unwrap(), Timestamp::default(), &mut violations);
        let fields: Vec<&str> = violations.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(
            fields,
            ["file.name", "file.category", "file.title", "file.tags[0]", "file.metadata", "file.expire_time"]
        );
    }
}
