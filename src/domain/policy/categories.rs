//! Changes of a tenant's categories, and everything that can be wrong with them.

use serde::Serialize;

use super::{Category, Policy, ReaderRule};
use crate::domain::{file::Visibility, media_type::is_media_type, violations::Violations};

/// The most categories of one tenant.
pub const CATEGORIES_MAX: usize = 100;
/// The most media types that one category names.
pub const TYPES_MAX: usize = 100;
/// The longest name, in characters: it is a part of storage keys.
pub const NAME_CHARACTERS_MAX: usize = 63;

/// New values of a category; what is absent stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CategoryChange {
    /// Who sees its new files, where the upload does not say.
    pub visibility: Option<Visibility>,
    /// Whether the classes that a file is attached to see it.
    pub is_read_by_classes: Option<bool>,
    /// The only media types that it takes.
    pub types: Option<Vec<String>>,
    /// Whether uploads that name no category get this one.
    pub is_default: Option<bool>,
}

/// Why a policy cannot be changed in this way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CategoryError {
    /// Values are wrong.
    Invalid(Violations),
    /// The name is taken.
    Exists,
    /// There is no category of this name.
    Missing,
    /// It is the default.
    IsDefault,
}

impl From<Violations> for CategoryError {
    fn from(violations: Violations) -> Self {
        Self::Invalid(violations)
    }
}

impl CategoryChange {
    fn check(&self, wrong: &mut Violations) {
        let types = self.types.as_deref().unwrap_or_default();
        if types.len() > TYPES_MAX {
            wrong.add("category.types", format!("must be at most {TYPES_MAX}, are {}", types.len()));
            return;
        }
        for (index, mime_type) in types.iter().enumerate() {
            if !is_media_type(mime_type) {
                wrong.add(
                    format!("category.types[{index}]"),
                    "must be a media type in lower case and without parameters, such as `image/png`",
                );
            }
        }
        if self.is_default == Some(false) {
            wrong.add("category.is_default", "cannot be taken away; make another category the default");
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
        Category { visibility: self.visibility.unwrap_or(category.visibility), readers, types }
    }
}

impl Policy {
    /// The policy with one category more.
    ///
    /// # Errors
    /// With everything that is wrong; when the name is taken.
    pub fn with_category(mut self, name: &str, change: &CategoryChange) -> Result<Self, CategoryError> {
        let mut wrong = Violations::new();
        check_name(name, &mut wrong);
        change.check(&mut wrong);
        let visibility = change.visibility;
        if visibility.is_none() {
            wrong.add("category.visibility", "must be set");
        }
        if self.categories.len() >= CATEGORIES_MAX {
            wrong.add("category", format!("a tenant has at most {CATEGORIES_MAX} categories"));
        }
        wrong.clone().into_result()?;
        let Some(visibility) = visibility else { return Err(wrong.into()) };
        if self.categories.contains_key(name) {
            return Err(CategoryError::Exists);
        }
        let bare = Category { visibility, readers: ReaderRule::None, types: Vec::new() };
        self.categories.insert(name.to_owned(), change.apply(&bare));
        Ok(self.with_default(name, change))
    }

    /// The policy with this category changed.
    ///
    /// # Errors
    /// With everything that is wrong; when there is no such category.
    pub fn with_changed_category(
        mut self,
        name: &str,
        change: &CategoryChange,
    ) -> Result<Self, CategoryError> {
        let mut wrong = Violations::new();
        change.check(&mut wrong);
        wrong.into_result()?;
        let category = self.categories.get_mut(name).ok_or(CategoryError::Missing)?;
        *category = change.apply(category);
        Ok(self.with_default(name, change))
    }

    /// The policy without this category. Whether any file has it is for the caller to know.
    ///
    /// # Errors
    /// When there is no such category, or it is the default.
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

fn check_name(name: &str, wrong: &mut Violations) {
    let is_name = (1..=NAME_CHARACTERS_MAX).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte));
    if !is_name {
        wrong.add(
            "category.name",
            format!("must be 1 to {NAME_CHARACTERS_MAX} characters of a-z, 0-9, _ and -, the first a letter"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn general() -> Policy {
        Policy::preset("general").unwrap()
    }

    fn seen_by_owner() -> CategoryChange {
        CategoryChange { visibility: Some(Visibility::Owner), ..CategoryChange::default() }
    }

    #[test]
    fn everything_wrong_with_a_category_is_reported_together() {
        let change = CategoryChange {
            types: Some(vec!["image/png".into(), "PNG".into(), "image/png; q=1".into()]),
            is_default: Some(false),
            ..CategoryChange::default()
        };
        let Err(CategoryError::Invalid(wrong)) = general().with_category("Bad name", &change) else {
            panic!("accepted")
        };
        let fields: Vec<&str> = wrong.iter().map(|violation| violation.field.as_str()).collect();
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
    fn names_are_parts_of_storage_keys() {
        for bad in ["", "a/b", "..", ".a", "-a", "1a", "ä", "A", &"a".repeat(64)] {
            assert!(general().with_category(bad, &seen_by_owner()).is_err(), "{bad}");
        }
        for good in ["a", "course-thumbnails", "a_1", &"a".repeat(63)] {
            assert!(general().with_category(good, &seen_by_owner()).is_ok(), "{good}");
        }
    }

    #[test]
    fn the_default_moves_with_a_word_and_cannot_be_removed() {
        let change = CategoryChange { is_default: Some(true), ..seen_by_owner() };
        let policy = general().with_category("inbox", &change).unwrap();
        assert_eq!(policy.category_default, "inbox");
        assert_eq!(policy.clone().without_category("inbox"), Err(CategoryError::IsDefault));
        assert!(policy.without_category("media_resource").is_ok());
    }

    #[test]
    fn what_a_change_does_not_name_stays() {
        let education = Policy::preset("education").unwrap();
        let before = education.categories["educational_content"].clone();
        let change = CategoryChange { types: Some(vec!["image/png".into()]), ..CategoryChange::default() };
        let after = education.with_changed_category("educational_content", &change).unwrap();
        let after = &after.categories["educational_content"];
        assert_eq!((after.visibility, after.readers), (before.visibility, before.readers));
        assert_eq!(after.types, ["image/png"]);
        assert_eq!(general().with_changed_category("nonsense", &change), Err(CategoryError::Missing));
        assert_eq!(general().with_category("report", &seen_by_owner()), Err(CategoryError::Exists));
    }

    #[test]
    fn the_number_of_categories_is_bounded() {
        let mut policy = general();
        for n in policy.categories.len()..CATEGORIES_MAX {
            policy = policy.with_category(&format!("c{n}"), &seen_by_owner()).unwrap();
        }
        assert!(matches!(policy.with_category("more", &seen_by_owner()), Err(CategoryError::Invalid(_))));
    }
}
