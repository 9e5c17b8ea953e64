//! Tests of the trust in issuers.

use super::*;
use crate::config::{Config, ConfigError, Problem};

/// Returns the configuration with these identity providers, as keys of each.
fn with_issuers(issuers: &[&str]) -> Config {
    let mut config = Config::defaults().unwrap();
    let parse = |(index, keys): (usize, &&str)| -> IssuerConfig {
        let text = format!("issuer = 'https://id{index}'\naudience = 'a'\njwks_file = 'f'\n{keys}");
        toml::from_str(&text).unwrap()
    };
    config.auth.issuers = issuers.iter().enumerate().map(parse).collect();
    config
}

/// Returns the problems of `auth` at the start of `serve`.
fn serve_problems(config: &Config) -> Vec<Problem> {
    let ConfigError::Invalid(problems) = config.validate_for_serve().unwrap_err() else { panic!() };
    problems.into_iter().filter(|problem| problem.key.starts_with("auth")).collect()
}

#[test]
fn issuer_is_trusted_with_little_by_default() {
    let config = with_issuers(&[""]);
    let issuer = &config.auth.issuers[0];
    assert!(!issuer.operators && issuer.create_tenants.is_none());
    assert_eq!(
        (&issuer.organizations, issuer.token_lifetime_max()),
        (&Organizations::Any, Duration::from_secs(86_400))
    );
    assert_eq!(serve_problems(&config), []);
}

#[test]
fn serve_refuses_several_issuers_of_operators() {
    let mut config = with_issuers(&["operators = true", "operators = true", ""]);
    let problems = serve_problems(&config);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].key, "auth.issuers");
    for part in ["2 issuers", "https://id0, https://id1", "auth.several_operator_issuers = true"] {
        assert!(problems[0].message.contains(part), "{problems:?}");
    }
    config.auth.several_operator_issuers = true;
    assert_eq!(serve_problems(&config), []);
    // Two audiences of one identity provider.
    config.auth.several_operator_issuers = false;
    config.auth.issuers[1].issuer = "https://id0".to_owned();
    config.auth.issuers[1].audience = "b".to_owned();
    assert_eq!(serve_problems(&config), []);
}

#[test]
fn operator_role_requires_an_issuer_that_may_name_operators() {
    let own = "roles = { root = 'operator', staff = 'member' }";
    let problems = serve_problems(&with_issuers(&["", own]));
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].key, "auth.issuers[1].roles");
    assert!(problems[0].message.contains("`root`"), "{problems:?}");
    assert_eq!(serve_problems(&with_issuers(&["", &format!("{own}\noperators = true")])), []);

    let mut shared = with_issuers(&["", ""]);
    shared.auth.roles.insert("root".to_owned(), RoleName::Operator);
    let problems = serve_problems(&shared);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].key, "auth.roles");
    shared.auth.issuers[1].operators = true;
    assert_eq!(serve_problems(&shared), []);
}

#[test]
fn organizations_are_any_or_a_list() {
    let listed = with_issuers(&["organizations = ['acme', 'globex']"]);
    let expected = BTreeSet::from(["acme".to_owned(), "globex".to_owned()]);
    assert_eq!(listed.auth.issuers[0].organizations, Organizations::Listed(expected));
    for empty in ["organizations = []", "organizations = ['']"] {
        let problems = serve_problems(&with_issuers(&[empty]));
        assert_eq!(problems[0].key, "auth.issuers[0].organizations");
    }
    let text = "issuer = 'i'\naudience = 'a'\njwks_file = 'f'\norganizations = 'some'";
    let error = toml::from_str::<IssuerConfig>(text).unwrap_err();
    assert!(error.to_string().contains("must be \"any\" or a list of ids"), "{error}");
}

#[test]
fn issuer_may_have_its_own_roles_and_claims() {
    let config = with_issuers(&["roles = { boss = 'admin' }\nclaims = { role = 'realm.role' }", ""]);
    let [own, other] = &config.auth.issuers[..] else { panic!() };
    assert_eq!(config.auth.roles_of(own).keys().collect::<Vec<_>>(), ["boss"]);
    assert_eq!(config.auth.claims_of(own).role, "realm.role");
    assert_eq!(config.auth.claims_of(own).user, "sub");
    assert_eq!(config.auth.roles_of(other), &config.auth.roles);
    assert_eq!(config.auth.claims_of(other).role, "role");
    let problems = serve_problems(&with_issuers(&["claims = { role = 'a..b' }"]));
    assert_eq!(problems[0].key, "auth.issuers[0].claims.role");
}

#[test]
fn lifetime_of_tokens_has_bounds() {
    for seconds in [59, 31_536_001] {
        let problems = serve_problems(&with_issuers(&[&format!("token_lifetime_max_seconds = {seconds}")]));
        assert_eq!(problems[0].key, "auth.issuers[0].token_lifetime_max_seconds");
    }
}
