//! Import sources must not give access to the service's own bytes or to its private network.

use crate::config::{Config, ConfigSources};

const TENANTS: &str = "tenants = '*'\n";

/// Loads a configuration and returns the rejected keys.
fn rejected_keys(text: &str) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.toml");
    std::fs::write(&file, text).unwrap();
    match Config::load(ConfigSources { file: Some(file), env: std::iter::empty() }) {
        Ok(_) => Vec::new(),
        Err(error) => error.problems().iter().map(|problem| problem.key.clone()).collect(),
    }
}

#[test]
fn rejects_a_source_directory_that_overlaps_a_provider() {
    for (root, path, is_rejected) in [
        ("/data", "/data/tenants", true),
        ("/data/live", "/data", true),
        ("/data", "/data", true),
        ("/data", "/database", false),
        ("/data", "old", true),
    ] {
        let text = format!(
            "[storage.providers.local]\nroot = '{root}'\n\
             [imports.sources.old]\nadapter = 'directory'\n{TENANTS}path = '{path}'"
        );
        let expected: &[&str] = if is_rejected { &["imports.sources.old.path"] } else { &[] };
        assert_eq!(rejected_keys(&text), expected, "{path}");
    }
}

#[test]
fn rejects_a_provider_directory_behind_a_link() {
    let parent = tempfile::tempdir().unwrap();
    let (root, link) = (parent.path().join("data"), parent.path().join("link"));
    std::fs::create_dir(&root).unwrap();
    std::os::unix::fs::symlink(&root, &link).unwrap();
    for path in [link, parent.path().join("data/../data"), root.clone()] {
        let text = format!(
            "[storage.providers.local]\nroot = '{}'\n\
             [imports.sources.old]\nadapter = 'directory'\n{TENANTS}path = '{}'",
            root.display(),
            path.display()
        );
        assert_eq!(rejected_keys(&text), ["imports.sources.old.path"], "{}", path.display());
    }
}

#[test]
fn recognizes_the_store_without_an_explicit_endpoint() {
    for (provider, source) in [
        ("", "endpoint = 'https://s3.us-east-1.amazonaws.com'"),
        ("endpoint = 'https://s3.us-east-1.amazonaws.com:443/'", ""),
    ] {
        let text = format!(
            "[storage.providers.live]\nadapter = 's3'\nbucket = 'live'\n{provider}\n\
             [imports.sources.old]\nadapter = 's3'\n{TENANTS}bucket = 'live'\n{source}"
        );
        assert_eq!(rejected_keys(&text), ["imports.sources.old.prefix"], "{provider} {source}");
    }
}

/// Returns the rejected keys of a configuration with a provider and a source in the same store.
fn reject_in_one_store(key_prefix: &str, provider: &str, source: &str) -> Vec<String> {
    rejected_keys(&format!(
        "[storage]\nkey_prefix = '{key_prefix}'\n\
         [storage.providers.live]\nadapter = 's3'\nendpoint = 'https://s3.test'\n{provider}\n\
         [imports.sources.old]\nadapter = 's3'\n{TENANTS}endpoint = 'https://s3.test:443/'\n{source}"
    ))
}

#[test]
fn source_in_a_provider_bucket_excludes_service_keys() {
    let id = "0193a7a0-0000-7000-8000-0000000000aa";
    for (key_prefix, prefix, is_rejected) in [
        ("live", "", true),
        ("live", "li", true),
        ("live", "live/", true),
        ("live", "live/x", true),
        ("live", "live2/", false),
        ("live", "old/", false),
        ("", "", true),
        ("", "0193", true),
        ("", id, true),
        ("", &format!("{id}/media_resource"), true),
        ("", "old/", false),
        ("", "0193/", false),
    ] {
        let found = reject_in_one_store(
            key_prefix,
            "bucket = 'files'",
            &format!("bucket = 'files'\nprefix = '{prefix}'"),
        );
        let expected: &[&str] = if is_rejected { &["imports.sources.old.prefix"] } else { &[] };
        assert_eq!(found, expected, "`{prefix}` beside `{key_prefix}`");
    }
    assert!(reject_in_one_store("live", "bucket = 'files'", "bucket = 'other'").is_empty());
}

#[test]
fn rejects_a_tenant_bucket_as_source() {
    let per_tenant = "bucket = 'files'\nbucket_per_tenant = true";
    for (bucket, is_rejected) in [
        ("files", true),
        ("files-0193a7a00000700080000000000000aa", true),
        ("files-old", false),
        ("other", false),
    ] {
        let found = reject_in_one_store("live", per_tenant, &format!("bucket = '{bucket}'\nprefix = 'old/'"));
        let expected: &[&str] = if is_rejected { &["imports.sources.old.bucket"] } else { &[] };
        assert_eq!(found, expected, "{bucket}");
    }
}

#[test]
fn accepts_only_public_host_names() {
    let web = |hosts: &str, allows: bool| {
        rejected_keys(&format!(
            "[imports.sources.old]\nadapter = 'url'\n{TENANTS}hosts = [{hosts}]\nallow_private_addresses = {allows}"
        ))
    };
    assert!(web("'files.example.org', '1.1.1.1'", false).is_empty());
    assert!(web("'127.0.0.1', '[::1]'", true).is_empty());
    let found = web("'a.test', 'https://a.test', 'a.test:443', '10.0.0.1', '0x7f.1', '[::1]', ''", false);
    let expected: Vec<String> = (1..7).map(|place| format!("imports.sources.old.hosts[{place}]")).collect();
    assert_eq!(found, expected);
}
