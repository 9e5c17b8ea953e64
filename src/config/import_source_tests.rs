//! What a source of imports must not lead to: the bytes of the service itself, and the network behind it.

use crate::config::{Config, Sources};

const TENANTS: &str = "tenants = '*'\n";

/// The keys that are refused.
fn refused(text: &str) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.toml");
    std::fs::write(&file, text).unwrap();
    match Config::load(Sources { file: Some(file), env: std::iter::empty() }) {
        Ok(_) => Vec::new(),
        Err(error) => error.problems().iter().map(|problem| problem.key.clone()).collect(),
    }
}

#[test]
fn a_directory_of_a_provider_is_no_source() {
    for (root, path, is_refused) in [
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
        let expected: &[&str] = if is_refused { &["imports.sources.old.path"] } else { &[] };
        assert_eq!(refused(&text), expected, "{path}");
    }
}

#[test]
fn a_directory_of_a_provider_is_no_source_however_it_is_written() {
    let place = tempfile::tempdir().unwrap();
    let (root, link) = (place.path().join("data"), place.path().join("link"));
    std::fs::create_dir(&root).unwrap();
    std::os::unix::fs::symlink(&root, &link).unwrap();
    for path in [link, place.path().join("data/../data"), root.clone()] {
        let text = format!(
            "[storage.providers.local]\nroot = '{}'\n\
             [imports.sources.old]\nadapter = 'directory'\n{TENANTS}path = '{}'",
            root.display(),
            path.display()
        );
        assert_eq!(refused(&text), ["imports.sources.old.path"], "{}", path.display());
    }
}

#[test]
fn a_store_is_known_also_where_its_address_is_left_out() {
    for (provider, source) in [
        ("", "endpoint = 'https://s3.us-east-1.amazonaws.com'"),
        ("endpoint = 'https://s3.us-east-1.amazonaws.com:443/'", ""),
    ] {
        let text = format!(
            "[storage.providers.live]\nadapter = 's3'\nbucket = 'live'\n{provider}\n\
             [imports.sources.old]\nadapter = 's3'\n{TENANTS}bucket = 'live'\n{source}"
        );
        assert_eq!(refused(&text), ["imports.sources.old.prefix"], "{provider} {source}");
    }
}

/// A provider and a source in one store.
fn in_one_store(key_prefix: &str, provider: &str, source: &str) -> Vec<String> {
    refused(&format!(
        "[storage]\nkey_prefix = '{key_prefix}'\n\
         [storage.providers.live]\nadapter = 's3'\nendpoint = 'https://s3.test'\n{provider}\n\
         [imports.sources.old]\nadapter = 's3'\n{TENANTS}endpoint = 'https://s3.test:443/'\n{source}"
    ))
}

#[test]
fn keys_of_the_service_are_beyond_a_source_in_its_bucket() {
    let id = "0193a7a0-0000-7000-8000-0000000000aa";
    for (key_prefix, prefix, is_refused) in [
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
        let found =
            in_one_store(key_prefix, "bucket = 'files'", &format!("bucket = 'files'\nprefix = '{prefix}'"));
        let expected: &[&str] = if is_refused { &["imports.sources.old.prefix"] } else { &[] };
        assert_eq!(found, expected, "`{prefix}` beside `{key_prefix}`");
    }
    assert!(in_one_store("live", "bucket = 'files'", "bucket = 'other'").is_empty());
}

#[test]
fn a_bucket_of_a_tenant_is_no_source() {
    let per_tenant = "bucket = 'files'\nbucket_per_tenant = true";
    for (bucket, is_refused) in [
        ("files", true),
        ("files-0193a7a00000700080000000000000aa", true),
        ("files-old", false),
        ("other", false),
    ] {
        let found = in_one_store("live", per_tenant, &format!("bucket = '{bucket}'\nprefix = 'old/'"));
        let expected: &[&str] = if is_refused { &["imports.sources.old.bucket"] } else { &[] };
        assert_eq!(found, expected, "{bucket}");
    }
}

#[test]
fn hosts_are_names_of_the_public_internet() {
    let web = |hosts: &str, allows: bool| {
        refused(&format!(
            "[imports.sources.old]\nadapter = 'url'\n{TENANTS}hosts = [{hosts}]\nallow_private_addresses = {allows}"
        ))
    };
    assert!(web("'files.example.org', '1.1.1.1'", false).is_empty());
    assert!(web("'127.0.0.1', '[::1]'", true).is_empty());
    let found = web("'a.test', 'https://a.test', 'a.test:443', '10.0.0.1', '0x7f.1', '[::1]', ''", false);
    let expected: Vec<String> = (1..7).map(|place| format!("imports.sources.old.hosts[{place}]")).collect();
    assert_eq!(found, expected);
}
