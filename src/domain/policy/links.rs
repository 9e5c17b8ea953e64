//! Rules of a category for links: shares that serve visitors without an account.

use serde::{Deserialize, Serialize};

use super::Policy;
use crate::domain::share::Share;

/// The categories of the preset `education` whose files are not shared by links.
const EDUCATION_WITHOUT_LINKS: [&str; 3] = ["student_submission", "assessment", "administrative"];

/// The rules of a category for links.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LinkRules {
    /// Whether links are forbidden.
    pub are_forbidden: bool,
    /// Whether a link needs a password.
    pub need_password: bool,
    /// Whether a link needs an expiry.
    pub need_expiry: bool,
}

impl LinkRules {
    /// Returns whether a link follows the rules. One that does not serves nothing, although it is older than the rules.
    pub fn allow(self, link: &Share) -> bool {
        !self.are_forbidden
            && (!self.need_password || link.has_password)
            && (!self.need_expiry || link.expire_time.is_some())
    }
}

impl Policy {
    /// Returns the rules of a category for links: its own, or those of the preset.
    pub fn link_rules(&self, category: &str) -> LinkRules {
        let own = self.categories.get(category).and_then(|category| category.links);
        let are_forbidden = self.name == "education" && EDUCATION_WITHOUT_LINKS.contains(&category);
        own.unwrap_or(LinkRules { are_forbidden, ..LinkRules::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn education_forbids_links_to_records_of_students() {
        let education = Policy::preset("education").unwrap();
        let forbidden: Vec<&String> = education
            .categories
            .keys()
            .filter(|category| education.link_rules(category).are_forbidden)
            .collect();
        assert_eq!(forbidden, ["administrative", "assessment", "student_submission"]);
        let general = Policy::preset("general").unwrap();
        assert_eq!(general.link_rules("assessment"), LinkRules::default());
    }

    #[test]
    fn rules_of_a_category_replace_those_of_the_preset() {
        let mut education = Policy::preset("education").unwrap();
        let rules = LinkRules { need_password: true, ..LinkRules::default() };
        education.categories.get_mut("assessment").unwrap().links = Some(rules);
        assert_eq!(education.link_rules("assessment"), rules);
    }
}
