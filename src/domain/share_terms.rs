//! The terms of a share, and their validation.

use chrono::Duration;

use super::{
    clock::Timestamp,
    permission::Permission,
    policy::LinkRules,
    share::{
        DOWNLOADS_MAX, NOTE_CHARACTERS_MAX, PASSWORD_CHARACTERS, RECIPIENTS_MAX, ShareType,
        TEMPORARY_HOURS_DEFAULT, TEMPORARY_HOURS_MAX,
    },
    text::{self, EXTERNAL_ID_CHARACTERS_MAX},
    violations::Violations,
};

/// The terms of a share: everything that its creator chooses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareTerms {
    pub share_type: ShareType,
    pub permission: Permission,
    pub has_password: bool,
    pub expire_time: Option<Timestamp>,
    pub max_downloads: Option<i64>,
    pub pinned_version: Option<i32>,
    pub note: String,
    /// The ids of the users that it serves.
    pub users: Vec<String>,
    /// The id of the group that it serves; may be empty.
    pub group: String,
}

/// The circumstances under which terms are checked.
#[derive(Debug, Clone, Copy)]
pub struct TermsContext {
    pub now: Timestamp,
    /// The time when the share was or is created.
    pub create_time: Timestamp,
    /// Whether the request sets the expiry. An expiry in the past is rejected only then.
    pub sets_expiry: bool,
    /// The rules of the category of the file.
    pub rules: LinkRules,
}

impl ShareTerms {
    /// Returns the expiry of a temporary share whose request does not name one.
    pub fn default_expiry(now: Timestamp) -> Option<Timestamp> {
        now.checked_add_signed(Duration::hours(TEMPORARY_HOURS_DEFAULT))
    }

    /// Checks the terms.
    ///
    /// # Errors
    /// Returns every violation, with the field paths of the API.
    pub fn check(&self, context: TermsContext) -> Result<(), Violations> {
        let mut violations = Violations::new();
        self.check_recipients(&mut violations);
        self.check_link_terms(context.rules, &mut violations);
        self.check_expiry(context, &mut violations);
        violations.ok_or_add("share.note", text::check_optional_line(&self.note, NOTE_CHARACTERS_MAX));
        violations.into_result()
    }

    fn check_recipients(&self, violations: &mut Violations) {
        let count = self.users.len();
        match self.share_type {
            ShareType::Users if count == 0 => violations.add("share.user_ids", "must name at least one user"),
            ShareType::Users => {}
            _ if count > 0 => violations.add("share.user_ids", "only shares of type USERS have users"),
            _ => {}
        }
        if count > RECIPIENTS_MAX {
            violations.add(
                "share.user_ids",
                format!("has {count} users; a share can have at most {RECIPIENTS_MAX}"),
            );
        }
        for (index, user) in self.users.iter().enumerate().take(RECIPIENTS_MAX) {
            let field = format!("share.user_ids[{index}]");
            violations.ok_or_add(&field, text::check_line(user, EXTERNAL_ID_CHARACTERS_MAX));
            if self.users[..index].contains(user) {
                violations.add(field, "is repeated");
            }
        }
        if self.share_type == ShareType::Group {
            violations.ok_or_add("share.group_id", text::check_line(&self.group, EXTERNAL_ID_CHARACTERS_MAX));
        } else if !self.group.is_empty() {
            violations.add("share.group_id", "only shares of type GROUP have a group");
        }
    }

    /// Checks the terms that only links have, and those that the policy requires from them.
    fn check_link_terms(&self, rules: LinkRules, violations: &mut Violations) {
        if !self.share_type.is_link() {
            let set = [
                ("password", self.has_password),
                ("share.max_downloads", self.max_downloads.is_some()),
                ("share.version", self.pinned_version.is_some()),
            ];
            for (field, _) in set.into_iter().filter(|(_, is_set)| *is_set) {
                violations.add(field, "only links (PUBLIC_LINK and TEMPORARY) have it");
            }
            return;
        }
        if self.permission == Permission::Delete {
            violations.add("share.permission", "must be VIEW or DOWNLOAD for a link");
        }
        if let Some(max) = self.max_downloads {
            if !(1..=DOWNLOADS_MAX).contains(&max) {
                violations.add(
                    "share.max_downloads",
                    format!("must be from 1 to {DOWNLOADS_MAX}, or 0 for no limit"),
                );
            }
            if self.permission == Permission::View {
                violations.add("share.max_downloads", "views are not counted; it needs permission DOWNLOAD");
            }
        }
        if self.pinned_version.is_some_and(|version| version < 1) {
            violations.add("share.version", "must be at least 1, or 0 for the current version");
        }
        if rules.need_password && !self.has_password {
            violations.add("password", "the policy of the file's category requires a password for links");
        }
        if rules.need_expiry && self.expire_time.is_none() {
            violations.add("share.expire_time", "the policy of the file's category requires it for links");
        }
    }

    fn check_expiry(&self, context: TermsContext, violations: &mut Violations) {
        let field = "share.expire_time";
        let Some(end) = self.expire_time else {
            if self.share_type == ShareType::Temporary {
                violations.add(field, "a temporary share must have one");
            }
            return;
        };
        if context.sets_expiry && end <= context.now {
            violations.add(field, "must be in the future");
        }
        let latest = context.create_time.checked_add_signed(Duration::hours(TEMPORARY_HOURS_MAX));
        if self.share_type == ShareType::Temporary && latest.is_some_and(|latest| end > latest) {
            violations.add(field, format!("a temporary share lives at most {TEMPORARY_HOURS_MAX} hours"));
        }
    }
}

/// Checks the length of a password, so that the work of hashing it is limited.
///
/// # Errors
/// Returns the actual length and the limits.
pub fn check_password(password: &str) -> Result<(), Violations> {
    let length = password.chars().count();
    if PASSWORD_CHARACTERS.contains(&length) {
        return Ok(());
    }
    let (min, max) = (PASSWORD_CHARACTERS.start(), PASSWORD_CHARACTERS.end());
    let problem = format!("has {length} characters; a password has {min} to {max}");
    Err(Violations::one("password", problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link() -> ShareTerms {
        ShareTerms {
            share_type: ShareType::PublicLink,
            permission: Permission::Download,
            has_password: false,
            expire_time: None,
            max_downloads: None,
            pinned_version: None,
            note: String::new(),
            users: Vec::new(),
            group: String::new(),
        }
    }

    fn violated(terms: &ShareTerms, rules: LinkRules) -> Vec<String> {
        let now = Timestamp::UNIX_EPOCH;
        let context = TermsContext { now, create_time: now, sets_expiry: true, rules };
        let Err(violations) = terms.check(context) else { return Vec::new() };
        violations.iter().map(|violation| violation.field.clone()).collect()
    }

    #[test]
    fn only_links_have_terms_of_links() {
        assert!(violated(&link(), LinkRules::default()).is_empty());
        let users = ShareTerms {
            share_type: ShareType::Users,
            has_password: true,
            max_downloads: Some(3),
            pinned_version: Some(1),
            ..link()
        };
        let fields = ["share.user_ids", "password", "share.max_downloads", "share.version"];
        assert_eq!(violated(&users, LinkRules::default()), fields);
        let link = ShareTerms {
            permission: Permission::Delete,
            users: vec!["bob".into()],
            group: "7a".into(),
            ..link()
        };
        let fields = ["share.user_ids", "share.group_id", "share.permission"];
        assert_eq!(violated(&link, LinkRules::default()), fields);
    }

    #[test]
    fn temporary_share_lives_at_most_seven_days() {
        let at = |hours| Timestamp::UNIX_EPOCH.checked_add_signed(Duration::hours(hours));
        for (expire_time, is_valid) in
            [(None, false), (at(0), false), (at(1), true), (at(168), true), (at(169), false)]
        {
            let terms = ShareTerms { share_type: ShareType::Temporary, expire_time, ..link() };
            assert_eq!(violated(&terms, LinkRules::default()).is_empty(), is_valid, "{expire_time:?}");
        }
    }

    #[test]
    fn policy_may_require_password_and_expiry() {
        let rules = LinkRules { need_password: true, need_expiry: true, ..LinkRules::default() };
        assert_eq!(violated(&link(), rules), ["password", "share.expire_time"]);
        let group = ShareTerms { share_type: ShareType::Group, group: "7a".into(), ..link() };
        assert!(violated(&group, rules).is_empty(), "the rules are for links");
    }

    #[test]
    fn passwords_have_a_limited_length() {
        for (length, is_valid) in [(7, false), (8, true), (128, true), (129, false)] {
            assert_eq!(check_password(&"ä".repeat(length)).is_ok(), is_valid, "{length}");
        }
    }
}
