//! A change of what people wrote about a file. Its content does not change with it.

use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    clock::Timestamp,
    file::{File, Visibility},
    file_fields as fields,
    policy::Policy,
    violations::Violations,
};

/// New values; what is absent stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the fields are those of the contract's File, explained there")]
pub struct FileUpdate {
    pub name: Option<String>,
    pub title: Option<String>,
    pub description: Option<String>,
    pub tags: Option<Vec<String>>,
    /// Left out of the payload of an update that does not name it: so that a retry says what was said before there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    pub metadata: Option<Map<String, Value>>,
    pub visibility: Option<Visibility>,
    /// `Some(None)`: it does not expire any more.
    pub expire_time: Option<Option<Timestamp>>,
    /// `Some(None)`: it need not be kept any more.
    pub retain_until_time: Option<Option<Timestamp>>,
}

impl FileUpdate {
    /// Checks everything against the policy, and notes all that is wrong. Whether a new category takes what the file has is
    /// for whoever knows that.
    #[must_use]
    pub fn check(mut self, policy: &Policy, now: Timestamp, wrong: &mut Violations) -> Self {
        if let Some(name) = &self.name {
            fields::check_name("file.name", name, policy, wrong);
        }
        if let Some(category) = &self.category {
            fields::check_category("file.category", category, policy, wrong);
        }
        if let Some(title) = &self.title {
            fields::check_title("file.title", title, wrong);
        }
        if let Some(description) = &self.description {
            fields::check_description("file.description", description, wrong);
        }
        self.tags = self.tags.map(|tags| fields::check_tags("file.tags", &tags, wrong));
        if let Some(metadata) = &self.metadata {
            fields::check_metadata("file.metadata", metadata, wrong);
        }
        fields::check_expire_time("file.expire_time", self.expire_time.flatten(), now, wrong);
        let until = self.retain_until_time.flatten();
        fields::check_retain_until_time("file.retain_until_time", until, now, wrong);
        self
    }

    /// The category that it moves the file to, if that is another one.
    pub fn new_category(&self, file: &File) -> Option<&str> {
        self.category.as_deref().filter(|category| *category != file.category)
    }

    /// Checks the ends that the file would have: its latest must not come before its earliest. Told of the field that is
    /// changed.
    pub fn check_ends(&self, file: &File) -> Result<(), Violations> {
        let mut wrong = Violations::new();
        let until = self.retain_until_time.unwrap_or(file.retain_until_time);
        if let Some(expire_time) = self.expire_time {
            fields::check_end("file.expire_time", expire_time, until, &mut wrong);
        } else if self.retain_until_time.is_some() {
            fields::check_end("file.retain_until_time", file.expire_time, until, &mut wrong);
        }
        if self.retain_until_time.is_some() {
            fields::check_end("file.retain_until_time", file.deletion_time, until, &mut wrong);
        }
        wrong.into_result()
    }

    /// Whether it would let the file go earlier than it must be kept now.
    pub fn shortens_retention(&self, file: &File, now: Timestamp) -> bool {
        match (self.retain_until_time, file.retain_until_time) {
            (Some(new), Some(old)) => now < old && new.is_none_or(|new| new < old),
            _ => false,
        }
    }

    /// The names of the fields that it sets.
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

    /// The file with the new values.
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
    fn everything_wrong_with_an_update_is_reported_together() {
        let update = FileUpdate {
            name: Some("run.exe".to_owned()),
            title: Some("two\nlines".to_owned()),
            tags: Some(vec![String::new()]),
            category: Some("nonsense".to_owned()),
            metadata: Some(Map::from_iter([("a\0".to_owned(), Value::Null)])),
            expire_time: Some(Some(Timestamp::default())),
            ..FileUpdate::default()
        };
        let mut wrong = Violations::new();
        let _ = update.check(&Policy::preset("general").unwrap(), Timestamp::default(), &mut wrong);
        let fields: Vec<&str> = wrong.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(
            fields,
            ["file.name", "file.category", "file.title", "file.tags[0]", "file.metadata", "file.expire_time"]
        );
    }
}
