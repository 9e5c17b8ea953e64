//! Changes to a tenant's categories, and their validation.

use serde::Serialize;

use super::{Category, LinkRules, Policy, ReaderRule};
use crate::domain::{file::Visibility, media_type::is_media_type, violations::Violations};

/// The maximum number of categories of a tenant.
pub const CATEGORIES_MAX: usize = 100;
/// The maximum number of media types of a category.
pub const TYPES_MAX: usize = 100;
/// The maximum length of a name, in characters. Names are part of object keys.
pub const NAME_CHARACTERS_MAX: usize = 63;

/// New values of a category. Absent fields are left unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CategoryChange {
    /// The visibility of new files whose upload does not specify one.
    pub visibility: Option<Visibility>,
    /// Whether files are readable by the classes that they are attached to.
    pub is_read_by_classes: Option<bool>,
    /// The allowed media types.
    pub types: Option<Vec<String>>,
    /// Whether uploads without a category use this one.
    pub is_default: Option<bool>,
    /// The rules for links.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub links: Option<LinkRules>,
}

/// The reason for rejecting a category change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CategoryError {
    /// The values are invalid.
    Invalid(Violations),
    /// A category with this name exists.
    Exists,
    /// No category with this name exists.
    Missing,
    /// The category is the default.
    IsDefault,
}

impl From<Violations> for CategoryError {
    fn from(violations: Violations) -> Self {
        Self::Invalid(violations)
    }
}

impl CategoryChange {
    fn check(&self, violations: &mut Violations) {
        let types = self.types.as_deref().unwrap_or_default();
        if types.len() > TYPES_MAX {
            violations.add(
                "category.types",
                format!("must have at most {TYPES_MAX} media types, has {}", types.len()),
            );
            return;
        }
        for (index, mime_type) in types.iter().enumerate() {
            if !is_media_type(mime_type) {
                violations.add(
                    format!("category.types[{index}]"),
                    "must be a media type in lower case and without parameters, such as `image/png`",
                );
            }
        }
        if self.is_default == Some(false) {
            violations
                .add("category.is_default", "cannot be unset; make another category the default instead");
        }
    }

    fn apply(&self, category: &Category) -> Category {
        let readers = match self.is_read_by_classes {
            None => category.readers,
            Some(true) => ReaderRule::AttachedClasses,
            Some(false) => ReaderRule::None,
        };
        let mut types = self.types.clone().unwrap_or_else(|| category.types.clone());
        types.sort();
        types.dedup();
        let links = self.links.or(category.links);
        Category { visibility: self.visibility.unwrap_or(category.visibility), readers, types, links }
    }
}

impl Policy {
    /// Returns the policy with an additional category.
    ///
    /// # Errors
    /// Returns all violations, or `Exists` if a category with this name exists.
    pub fn with_category(mut self, name: &str, change: &CategoryChange) -> Result<Self, CategoryError> {
        let mut violations = Violations::new();
        check_name(name, &mut violations);
        change.check(&mut violations);
        let visibility = change.visibility;
        if visibility.is_none() {
            violations.add("category.visibility", "must be set");
        }
        if self.categories.len() >= CATEGORIES_MAX {
            violations.add("category", format!("a tenant can have at most {CATEGORIES_MAX} categories"));
        }
        violations.clone().into_result()?;
        let Some(visibility) = visibility else { return Err(violations.into()) };
        if self.categories.contains_key(name) {
            return Err(CategoryError::Exists);
        }
        let new = Category { visibility, readers: ReaderRule::None, types: Vec::new(), links: None };
        self.categories.insert(name.to_owned(), change.apply(&new));
        Ok(self.with_default(name, change))
    }

    /// Returns the policy with a changed category.
    ///
    /// # Errors
    /// Returns all violations, or `Missing` if the category does not exist.
    pub fn with_changed_category(
        mut self,
        name: &str,
        change: &CategoryChange,
    ) -> Result<Self, CategoryError> {
        let mut violations = Violations::new();
        change.check(&mut violations);
        violations.into_result()?;
        let category = self.categories.get_mut(name).ok_or(CategoryError::Missing)?;
        *category = change.apply(category);
        Ok(self.with_default(name, change))
    }

    /// Returns the policy without a category. The caller must check that the category has no files.
    ///
    /// # Errors
    /// Returns `Missing` if the category does not exist, or `IsDefault` if it is the default.
    pub fn without_category(mut self, name: &str) -> Result<Self, CategoryError> {
        if self.category_default == name {
            return Err(CategoryError::IsDefault);
        }
        self.categories.remove(name).map(|_| self).ok_or(CategoryError::Missing)
    }

    fn with_default(mut self, name: &str, change: &CategoryChange) -> Self {
        if change.is_default == Some(true) {
            name.clone_into(&mut self.category_default);
        }
        self
    }
}

fn check_name(name: &str, violations: &mut Violations) {
    let is_name = (1..=NAME_CHARACTERS_MAX).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte));
    if !is_name {
        violations.add(
            "category.name",
            format!(
                "must be 1 to {NAME_CHARACTERS_MAX} characters of a-z, 0-9, _ and -, starting with a letter"
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn general() -> Policy {
        Policy::preset("general").unwrap()
    }

    fn owner_only() -> CategoryChange {
        CategoryChange { visibility: Some(Visibility::Owner), ..CategoryChange::default() }
    }

    #[test]
    fn reports_all_violations_of_a_category() {
        let change = CategoryChange {
            types: Some(vec!["image/png".into(), "PNG".into(), "image/png; q=1".into()]),
            is_default: Some(false),
            ..CategoryChange::default()
        };
        let Err(CategoryError::Invalid(violations)) = general().with_category("Bad name", &change) else {
            panic!("accepted")
        };
        let fields: Vec<&str> = violations.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "category.name",
                "category.types[1]",
                "category.types[2]",
                "category.is_default",
                "category.visibility"
            ]
        );
    }

    #[test]
    fn category_names_are_valid_key_segments() {
        for bad in ["", "a/b", "..", ".a", "-a", "1a", "ä", "A", &"a".repeat(64)] {
            assert!(general().with_category(bad, &owner_only()).is_err(), "{bad}");
        }
        for good in ["a", "course-thumbnails", "a_1", &"a".repeat(63)] {
            assert!(general().with_category(good, &owner_only()).is_ok(), "{good}");
        }
    }

    #[test]
    fn default_category_can_be_changed_but_not_deleted() {
        let change = CategoryChange { is_default: Some(true), ..owner_only() };
        let policy = general().with_category("inbox", &change).unwrap();
        assert_eq!(policy.category_default, "inbox");
        assert_eq!(policy.clone().without_category("inbox"), Err(CategoryError::IsDefault));
        assert!(policy.without_category("media_resource").is_ok());
    }

    #[test]
    fn change_keeps_fields_that_it_does_not_set() {
        let education = Policy::preset("education").unwrap();
        let before = education.categories["educational_content"].clone();
        let change = CategoryChange { types: Some(vec!["image/png".into()]), ..CategoryChange::default() };
        let after = education.with_changed_category("educational_content", &change).unwrap();
        let after = &after.categories["educational_content"];
        assert_eq!((after.visibility, after.readers), (before.visibility, before.readers));
        assert_eq!(after.types, ["image/png"]);
        assert_eq!(general().with_changed_category("nonsense", &change), Err(CategoryError::Missing));
        assert_eq!(general().with_category("report", &owner_only()), Err(CategoryError::Exists));
    }

    #[test]
    fn number_of_categories_is_limited() {
        let mut policy = general();
        for n in policy.categories.len()..CATEGORIES_MAX {
            policy = policy.with_category(&format!("c{n}"), &owner_only()).unwrap();
        }
        assert!(matches!(policy.with_category("more", &owner_only()), Err(CategoryError::Invalid(_))));
    }
}
