//! Tests of the layers, the reference and the error messages.

use std::{io::Write, time::Duration};

use crate::domain::caller::TenantKind;

use super::{
    auth::JwksSource,
    import_source::SourceLocation,
    provider::{Encryption, PayloadSigning},
    schema::Example,
    *,
};

/// Loads a configuration from a file with this text and from these variables.
fn load(file: &str, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let mut on_disk = tempfile::NamedTempFile::new().unwrap();
    on_disk.write_all(file.as_bytes()).unwrap();
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let env: Vec<_> = env.collect();
    Config::load(ConfigSources { file: Some(on_disk.path().to_owned()), env: env.into_iter() })
}

fn problems(file: &str, env: &[(&str, &str)]) -> Vec<Problem> {
    load(file, env).unwrap_err().problems().to_vec()
}

/// Returns the defaults and the example tables, which are comments in `default.toml`.
fn reference() -> String {
    let examples = Example::ALL.map(|example| format!("\n# An example.\n{}", example.text()));
    format!("{DEFAULT_TOML}{}", examples.concat())
}

fn keys(problems: &[Problem]) -> Vec<&str> {
    problems.iter().map(|problem| problem.key.as_str()).collect()
}

#[test]
fn defaults_are_valid() {
    let config = Config::defaults().unwrap();
    assert_eq!(config.uploads.part_size_bytes, 8 * 1024 * 1024);
    assert_eq!(config.uploads.idle_timeout(), Duration::from_secs(60));
    assert!(config.database.migrate_url.is_none());
    assert!(config.server.tls.files().is_none());
    assert!(config.server.connection_age_max().is_none());
    config.validate().unwrap();
}

#[test]
fn every_key_of_the_reference_has_a_comment() {
    let mut explained = false;
    let mut in_free_map = false;
    for line in reference().lines() {
        let is_section = line.starts_with('[');
        if is_section || (line.contains(" = ") && !line.starts_with('#')) {
            assert!(explained || (in_free_map && !is_section), "no comment before: {line}");
            in_free_map = if is_section { line == "[auth.roles]" } else { in_free_map };
        }
        explained = line.starts_with('#');
    }
}

#[test]
fn documented_limits_are_enforced() {
    let (mut section, mut limits, mut checked) = (String::new(), None, 0);
    for line in reference().lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
            limits = None;
        } else if let Some(comment) = line.strip_prefix("# ") {
            // A comment may be wrapped between "Limits:" and the numbers.
            limits = Some(format!("{} {comment}", limits.unwrap_or_default()));
        } else if let Some((key, _)) = line.split_once(" = ") {
            let comment = limits.take().unwrap_or_default();
            let Some((_, range)) = comment.split_once("Limits: ") else { continue };
            let mut words = range.split([' ', ',', '.']);
            let (low, high) = (words.next().unwrap(), words.nth(1).unwrap());
            let above = high.parse::<u64>().unwrap() + 1;
            let example = Example::ALL.into_iter().find(|example| example.key() == section);
            let adapter =
                example.map(|example| format!("adapter = {}\n", example.keys().unwrap()["adapter"]));
            let adapter = adapter.unwrap_or_default();
            let found = problems(&format!("[{section}]\n{adapter}{key} = {above}"), &[]);
            let expected = format!("must be {low} to {high}, not {above}");
            let path = format!("{section}.{key}");
            assert!(found.iter().any(|p| p.key == path && p.message == expected), "{path}: {found:?}");
            checked += 1;
        } else {
            limits = None;
        }
    }
    assert!(checked > 50, "only {checked} limits were found in default.toml");
}

#[test]
fn issuer_example_of_the_reference_is_valid() {
    let example: String = DEFAULT_TOML
        .lines()
        .skip_while(|line| !line.contains("[[auth.issuers]]"))
        .take_while(|line| line.starts_with("#   "))
        .map(|line| format!("{}\n", &line[4..]))
        .collect();
    let config = load(&example, &[]).unwrap();
    let issuer = &config.auth.issuers[0];
    assert_eq!(issuer.issuer, "https://id.example.org");
    assert!(matches!(issuer.jwks(), Some(JwksSource::Url(url)) if url.host_str() == Some("id.example.org")));
}

#[test]
fn environment_overrides_file_and_file_overrides_defaults() {
    let file = "[uploads]\npart_size_bytes = 6291456\nlease_seconds = 120\n\
                [storage.providers.local]\nroot = '/srv/files'";
    let env = [
        ("STRONGROOM_UPLOADS__PART_SIZE_BYTES", "7340032"),
        ("STRONGROOM_SERVER__HTTP2__MAX_CONCURRENT_STREAMS", "9"),
        ("STRONGROOM_STORAGE__KEY_PREFIX", "files"),
        ("STRONGROOM_TELEMETRY__TRACE_SAMPLE_RATIO", "1"),
    ];
    let config = load(file, &env).unwrap();
    assert_eq!(config.uploads.part_size_bytes, 7_340_032);
    assert_eq!(config.uploads.lease_duration(), Duration::from_secs(120));
    assert_eq!(config.uploads.commit_batch_max, 64);
    assert_eq!(config.server.http2.max_concurrent_streams, 9);
    assert_eq!(config.storage.key_prefix, "files");
    let Some(ProviderConfig::Local(local)) = config.storage.providers.get("local") else { panic!() };
    assert_eq!(local.root.as_ref().unwrap().to_str(), Some("/srv/files"));
}

#[test]
fn variables_can_contain_lists_and_tables_as_toml() {
    let issuers = r#"[{ issuer = "https://id.test", audience = "files", jwks_file = "/keys.json" }]"#;
    let env =
        [("STRONGROOM_AUTH__ISSUERS", issuers), ("STRONGROOM_AUTH__ROLES", r#"{ "org:chief" = "admin" }"#)];
    let auth = load("", &env).unwrap().auth;
    assert_eq!(auth.issuers[0].jwks_refresh(), Duration::from_secs(300));
    assert_eq!(auth.issuers[0].algorithms.len(), 2);
    // A table with keys of the operator replaces the default table, so that entries can be removed.
    assert_eq!(auth.roles.keys().collect::<Vec<_>>(), ["org:chief"]);
}

#[test]
fn ignores_unrelated_variables() {
    let env = [
        ("STRONGROOM_SERVER", "http://127.0.0.1:1"),
        ("STRONGROOM_TEST_POSTGRES_URL", "x"),
        ("STRONGROOM_TOKEN", "x"),
        ("HOME__DIR", "x"),
    ];
    load("", &env).unwrap();
}

#[test]
fn unknown_key_is_reported_with_path_and_source() {
    let file = "[uploads]\npart_size = 1\n[uplods]\nx = 1\n[server.http2]\nwindow = 1";
    let env = [("STRONGROOM_LISTS__PAGE_SIZE", "5"), ("STRONGROOM_AUTH__ROLES__CHIEF", "admin")];
    let found = problems(file, &env);
    let mut unknown = keys(&found);
    unknown.sort_unstable();
    let expected =
        ["auth.roles.chief", "lists.page_size", "server.http2.window", "uploads.part_size", "uplods"];
    assert_eq!(unknown, expected);
    let of = |key: &str| found.iter().find(|problem| problem.key == key).unwrap().to_string();
    assert!(of("lists.page_size").contains("from STRONGROOM_LISTS__PAGE_SIZE"));
    assert!(of("lists.page_size").contains("page_size_max"));
    assert!(of("auth.roles.chief").contains("set all of `auth.roles`"));
    assert!(matches!(found.iter().find(|p| p.key == "uplods").unwrap().origin, Some(Origin::File(_))));
}

#[test]
fn rejects_an_unknown_key_of_an_issuer() {
    let found = problems("[[auth.issuers]]\nissuer = 'i'\naudience = 'a'\njwks_fil = 'f'", &[]);
    assert_eq!(keys(&found), ["auth.issuers"]);
    assert!(found[0].message.contains("jwks_fil"), "{found:?}");
}

#[test]
fn reports_all_violations_together() {
    let file = "[lists]\npage_size_default = 0\n[auth]\nrole_default = 'operator'";
    let error = load(file, &[("STRONGROOM_UPLOADS__PART_SIZE_BYTES", "1")]).unwrap_err();
    let expected = ["uploads.part_size_bytes", "auth.role_default", "lists.page_size_default"];
    assert_eq!(keys(error.problems()), expected);
    let text = error.to_string();
    assert!(text.contains("must be 5242880 to 67108864, not 1 (from STRONGROOM_UPLOADS__PART_SIZE_BYTES)"));
}

#[test]
fn invalid_value_is_reported_with_its_path() {
    let found = problems("[telemetry]\nlog_format = 'xml'\n[lists]\ncount_max = -1", &[]);
    assert_eq!(keys(&found), ["lists.count_max", "telemetry.log_format"]);
    assert!(found.iter().all(|problem| matches!(problem.origin, Some(Origin::File(_)))), "{found:?}");
}

#[test]
fn wrong_type_is_reported_without_the_value() {
    let found = problems("[database]\nurl = 12345", &[("STRONGROOM_UPLOADS__LEASE_SECONDS", "hunter2")]);
    assert_eq!(keys(&found), ["database.url", "uploads.lease_seconds"]);
    let text = format!("{found:?}");
    assert!(!text.contains("12345") && !text.contains("hunter2"), "{text}");
}

#[test]
fn syntax_error_is_reported_by_line_without_quoting_it() {
    let error = load("[database]\nurl = 'postgres://u:hunter2@db", &[]).unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(text.contains("line 2") && !text.contains("hunter2"), "{text}");
}

#[test]
fn secrets_are_absent_from_debug_output_and_errors() {
    let env = [
        ("STRONGROOM_DATABASE__URL", "postgres://app:hunter2@db/strongroom"),
        ("STRONGROOM_SECRETS__PAGE_TOKEN_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
    ];
    let config = load("", &env).unwrap();
    let text = format!("{config:?}");
    assert!(!text.contains("hunter2") && !text.contains("AAECAw"), "{text}");
    assert!(config.secrets.page_token_key().is_some());
    let text = format!("{:?}", problems("", &[("STRONGROOM_SECRETS__PAGE_TOKEN_KEY", "hunter2")]));
    assert!(text.contains("secrets.page_token_key") && !text.contains("hunter2"), "{text}");
}

#[test]
fn serve_reports_all_missing_settings() {
    let error = Config::defaults().unwrap().validate_for_serve().unwrap_err();
    let expected = [
        "server.listen",
        "edge.listen",
        "database.url",
        "database.system_url",
        "storage.providers.local.root",
        "auth.issuers",
        "secrets.page_token_key",
    ];
    assert_eq!(keys(error.problems()), expected);
    assert!(error.to_string().contains("[[auth.issuers]]"));
    let error = Config::defaults().unwrap().validate_for_migrate().unwrap_err();
    assert_eq!(keys(error.problems()), ["database.migrate_url"]);
}

#[test]
fn worker_requires_the_page_token_key() {
    let error = Config::defaults().unwrap().validate_for_worker().unwrap_err();
    assert!(keys(error.problems()).contains(&"secrets.page_token_key"), "{error}");
}

#[test]
fn issuer_requires_one_secure_key_source() {
    let with = |jwks: &str| problems(&format!("[[auth.issuers]]\nissuer = 'i'\naudience = 'a'\n{jwks}"), &[]);
    assert_eq!(keys(&with("")), ["auth.issuers[0]"]);
    assert_eq!(keys(&with("jwks_file = 'f'\njwks_url = 'https://id.test'")), ["auth.issuers[0]"]);
    assert_eq!(keys(&with("jwks_url = 'http://id.test/keys'")), ["auth.issuers[0].jwks_url"]);
    load("[[auth.issuers]]\nissuer = 'i'\naudience = 'a'\njwks_url = 'http://127.0.0.1:9/k'", &[]).unwrap();
}

#[test]
fn checks_limits_that_depend_on_each_other() {
    let file = "[server]\nmessage_size_max_bytes = 65536\n[server.http2]\nconnection_window_bytes = 134217727\n\
                [uploads]\nlease_seconds = 60\n[storage]\nkey_prefix = 'a/../b'\n[server.tls]\nkey_file = 'key.pem'";
    let expected = [
        "server.tls",
        "server.http2.connection_window_bytes",
        "server.message_size_max_bytes",
        "uploads.lease_seconds",
        "storage.key_prefix",
    ];
    assert_eq!(keys(&problems(file, &[])), expected);
}

#[test]
fn rejects_an_invalid_key_prefix() {
    for prefix in ["files/", "/files", "Files", "a b"] {
        let found = problems(&format!("[storage]\nkey_prefix = '{prefix}'"), &[]);
        assert_eq!(keys(&found), ["storage.key_prefix"], "{prefix}");
    }
    assert_eq!(load("[storage]\nkey_prefix = 'files/eu'", &[]).unwrap().storage.key_prefix, "files/eu");
}

#[test]
fn rejects_two_providers_with_the_same_location() {
    let local = |root: &str| format!("adapter = 'local'\nroot = '{root}'\n");
    let s3 = |endpoint: &str, bucket: &str| {
        format!("adapter = 's3'\nregion = 'r'\nendpoint = '{endpoint}'\nbucket = '{bucket}'\n")
    };
    let both = |a: &str, b: &str| format!("[storage.providers.a]\n{a}[storage.providers.b]\n{b}");
    for (one, same, different) in [
        (local("/srv/files"), local("/srv/files/"), local("/srv/files/2")),
        (s3("https://s3.test", "files"), s3("https://s3.test/", "files"), s3("https://s3.test", "more")),
        (s3("https://s3.test", "files"), s3("https://s3.test:443", "files"), s3("https://s4.test", "files")),
    ] {
        let found = problems(&both(&one, &same), &[]);
        assert_eq!(keys(&found), ["storage.providers.b"], "{found:?}");
        assert!(found[0].message.contains("`storage.providers.a`"), "{found:?}");
        load(&both(&one, &different), &[]).unwrap();
    }
}

#[test]
fn memory_bound_is_the_sum_of_its_components() {
    let mib = 1024 * 1024;
    let mut config = Config::defaults().unwrap();
    config.server.connections_max = 10;
    config.server.requests_max = 64;
    config.uploads.byte_budget_bytes = 32 * mib;
    config.uploads.decode_permits = 9;
    config.server.message_size_max_bytes = 2 * mib;
    config.downloads.streams_max = 5;
    // Clients that cannot stream send a whole part in one message; four messages of a stream need more
    // memory.
    config.uploads.part_size_bytes = 5 * mib;
    let bound = config.memory_bound();
    // Nine of the largest chunks of one caller may wait for a buffer, and those of others. Messages take space while they are received, and decoded
    // messages until they are validated.
    let (uploads, decoding) = (32 + 32, 9 * 2 + (9 * 2 + 32));
    let responses = 128 + 16 * 40;
    let total = 64 + 64 + 10 + uploads + decoding + responses + 5 * (2 + 1);
    assert_eq!(config.memory_bound_bytes(), total * mib as u64);
    let expected = "at most 1053 MiB = 64 base + 64 windows + 10 requests + 64 upload buffers + 68 decoding + \
                    768 responses + 15 downloads";
    assert_eq!(bound.to_string(), expected);
    // A few connections cannot fill the windows of all requests.
    config.server.http2.connection_window_bytes = 4 << 20;
    assert_eq!(config.memory_bound().windows_bytes, 10 * 4 * mib as u64);
}

#[test]
fn s3_example_of_the_reference_needs_only_a_bucket() {
    let example = Example::S3_PROVIDER.text();
    let bucket = load(&example.replace("bucket = \"\"", "bucket = \"files\""), &[]).unwrap();
    let Some(ProviderConfig::S3(s3)) = bucket.storage.providers.get("bucket") else { panic!() };
    assert_eq!((s3.bucket.as_str(), s3.region.as_str(), s3.endpoint.as_ref()), ("files", "us-east-1", None));
    assert_eq!((s3.encryption, s3.payload_signing), (Encryption::Aes256, PayloadSigning::Auto));
    let found = problems("[storage.providers.bucket]\nadapter = 's3'", &[]);
    assert_eq!(keys(&found), ["storage.providers.bucket.bucket"]);
}

#[test]
fn variables_can_add_a_provider_to_those_of_the_file() {
    let file = "[storage]\nprovider = 'archive'\n[storage.providers.archive]\nadapter = 's3'\nbucket = 'old'\n\
                tags = { team = 'files' }";
    let env = [
        // Sorts before ADAPTER.
        ("STRONGROOM_STORAGE__PROVIDERS__CLOUD__ACCESS_KEY_ID", "id"),
        ("STRONGROOM_STORAGE__PROVIDERS__CLOUD__ADAPTER", "s3"),
        ("STRONGROOM_STORAGE__PROVIDERS__CLOUD__ALLOW_HTTP", "true"),
        ("STRONGROOM_STORAGE__PROVIDERS__CLOUD__BUCKET", "files"),
        ("STRONGROOM_STORAGE__PROVIDERS__CLOUD__ENDPOINT", "http://127.0.0.1:3900"),
        ("STRONGROOM_STORAGE__PROVIDERS__CLOUD__SECRET_ACCESS_KEY", "hunter2"),
        ("STRONGROOM_STORAGE__PROVIDERS__CLOUD__REQUEST_TIMEOUT_SECONDS", "7"),
        ("STRONGROOM_STORAGE__PROVIDERS__ARCHIVE__BUCKET", "new"),
        ("STRONGROOM_STORAGE__PROVIDERS__TRIAL", "{ adapter = 'memory' }"),
    ];
    let storage = load(file, &env).unwrap().storage;
    let s3 = |name: &str| match storage.providers.get(name) {
        Some(ProviderConfig::S3(s3)) => (s3.bucket.clone(), s3.request_timeout_seconds, s3.tags.len()),
        other => panic!("{other:?}"),
    };
    assert_eq!(s3("cloud"), ("files".to_owned(), 7, 0));
    assert_eq!(s3("archive"), ("new".to_owned(), 60, 1));
    assert!(matches!(storage.providers.get("trial"), Some(ProviderConfig::Memory)));
    assert!(!format!("{storage:?}").contains("hunter2"));
}

#[test]
fn reports_all_problems_of_providers_together() {
    let file = "[storage]\nprovider = 'gone'\n[storage.providers.odd__name]\nadapter = 'local'\n\
                [storage.providers.cloud]\nadapter = 's3'\nbucket = 'files'\nendpoint = 'http://store.test'\n\
                access_key_id = 'id'\nkms_key_id = 'k'";
    let expected = [
        "storage.provider",
        "storage.providers.cloud.endpoint",
        "storage.providers.cloud",
        "storage.providers.cloud.kms_key_id",
        "storage.providers.odd__name",
        "storage.providers.odd__name.root",
    ];
    assert_eq!(keys(&problems(file, &[])), expected);
}

#[test]
fn archive_storage_class_must_allow_immediate_reads() {
    let file = |class: &str, new_class: &str| {
        let text = format!("archive_storage_class = '{class}'\nstorage_class = '{new_class}'");
        format!("[storage.providers.cloud]\nadapter = 's3'\nbucket = 'files'\n{text}")
    };
    for class in ["", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR"] {
        let loaded = load(&file(class, ""), &[]).unwrap();
        let Some(ProviderConfig::S3(s3)) = loaded.storage.providers.get("cloud") else { panic!() };
        assert_eq!(s3.archive_storage_class.as_deref().unwrap_or_default(), class);
    }
    for (class, new_class, why) in [
        ("GLACIER", "", "cannot be read without a restore that takes hours"),
        ("DEEP_ARCHIVE", "", "cannot be read without a restore that takes hours"),
        ("standard_ia", "", "one of STANDARD_IA"),
        ("GLACIER_IR", "GLACIER_IR", "must differ from `storage_class`"),
    ] {
        let found = problems(&file(class, new_class), &[]);
        assert_eq!(keys(&found), ["storage.providers.cloud.archive_storage_class"]);
        assert!(found[0].message.contains(why), "{found:?}");
    }
}

#[test]
fn rejects_invalid_bucket_names() {
    let check = |bucket: &str, per_tenant: bool| {
        let text = format!("bucket = '{bucket}'\nbucket_per_tenant = {per_tenant}");
        load(&format!("[storage.providers.cloud]\nadapter = 's3'\n{text}"), &[])
            .map_err(|error| keys(error.problems()).join(" "))
            .map(|_| ())
    };
    let rejected = Err("storage.providers.cloud.bucket".to_owned());
    for (length, per_tenant) in [(63, false), (30, true)] {
        assert_eq!(check(&"b".repeat(length), per_tenant), Ok(()));
        assert_eq!(check(&"b".repeat(length + 1), per_tenant), rejected);
    }
    for bucket in ["ab", "Files", "my_files", "-files", "files.", "my..files", "fi/les"] {
        assert_eq!(check(bucket, false), rejected, "{bucket}");
    }
    assert_eq!(check("my-files.eu1", false), Ok(()));
}

#[test]
fn rejects_keys_of_other_adapters_and_missing_adapters() {
    let file = "[storage.providers.local]\nbucket = 'b'\n[storage.providers.x]\nbucket = 'b'\n\
                [storage.providers.y]\nadapter = 'tape'\n[storage.providers.z]\nadapter = 'memory'\nroot = '/r'";
    let env = [("STRONGROOM_STORAGE__PROVIDERS__V__BUCKET", "b")];
    let found = problems(file, &env);
    let expected = [
        "storage.providers.v.adapter",
        "storage.providers.x.adapter",
        "storage.providers.y.adapter",
        "storage.providers.local.bucket",
        "storage.providers.z.root",
    ];
    assert_eq!(keys(&found), expected);
    assert!(found[1].message.contains("local, memory, s3"), "{found:?}");
    assert!(matches!(&found[0].origin, Some(Origin::Variable(name)) if name.ends_with("V__BUCKET")));
    let found = problems("[storage.providers.b]\nadapter = 's3'\nbucket = 'b'\nencryption = 'rot13'", &[]);
    assert_eq!(keys(&found), ["storage.providers.b.encryption"]);
}

#[test]
fn worker_limits_must_be_consistent() {
    let file = "[worker]\nheartbeat_seconds = 21\ntenant_jobs_max = 5\npoll_max_milliseconds = 50\n\
                backoff_max_seconds = 4";
    assert_eq!(
        keys(&problems(file, &[])),
        [
            "worker.tenant_jobs_max",
            "worker.poll_max_milliseconds",
            "worker.heartbeat_seconds",
            "worker.backoff_max_seconds"
        ]
    );
}

#[test]
fn source_examples_need_only_tenants_and_a_location() {
    let tenant = "00000000-0000-7000-8000-000000000001";
    for (example, place, none, given) in [
        (Example::DIRECTORY_SOURCE, "path", "\"\"", "'/srv/old'"),
        (Example::S3_SOURCE, "bucket", "\"\"", "'old'"),
        (Example::URL_SOURCE, "hosts", "[]", "['Files.example.org', '1.1.1.1']"),
    ] {
        let (text, at) = (example.text(), example.key());
        let set = text.replace("tenants = \"\"", &format!("tenants = '{tenant}'"));
        let set = set.replace(&format!("\n{place} = {none}"), &format!("\n{place} = {given}"));
        let imports = load(&set, &[]).unwrap().imports;
        let name = at.replace("imports.sources.", "");
        let source = |name: &str, tenant: &str| {
            imports.source_for(name, tenant.parse().unwrap(), TenantKind::Organization).is_some()
        };
        assert!(source(&name, tenant) && !source(&name, &tenant.replace('1', "2")), "{name}");
        assert!(!source("other", tenant));
        let found = problems(&text, &[]);
        assert_eq!(keys(&found), [format!("{at}.tenants"), format!("{at}.{place}")]);
    }
    let found =
        problems("[imports]\ndirectories = {}\n[imports.sources.x]\nadapter = 'disk'\npath = '/'", &[]);
    assert_eq!(keys(&found), ["imports.sources.x.adapter", "imports.directories"]);
    assert!(found[0].message.contains("directory, s3, url"), "{found:?}");
    let found = problems("[imports.sources.x]\nadapter = 's3'\nencryption = 'kms'", &[]);
    assert_eq!(keys(&found), ["imports.sources.x.encryption"], "import sources are only read");
}

#[test]
fn variables_can_set_a_source_without_leaking_its_secret() {
    let env = [
        ("STRONGROOM_IMPORTS__SOURCES__OLD__ADAPTER", "s3"),
        ("STRONGROOM_IMPORTS__SOURCES__OLD__TENANTS", "*"),
        ("STRONGROOM_IMPORTS__SOURCES__OLD__BUCKET", "old"),
        ("STRONGROOM_IMPORTS__SOURCES__OLD__PREFIX", "users/"),
        ("STRONGROOM_IMPORTS__SOURCES__OLD__ACCESS_KEY_ID", "id"),
        ("STRONGROOM_IMPORTS__SOURCES__OLD__SECRET_ACCESS_KEY", "hunter2"),
    ];
    let imports = load("", &env).unwrap().imports;
    let SourceLocation::Bucket(place) = &imports.sources["old"].location else { panic!("{imports:?}") };
    assert_eq!((place.s3.bucket.as_str(), place.prefix.as_str()), ("old", "users/"));
    assert!(place.s3.secret_access_key.is_some() && !format!("{imports:?}").contains("hunter2"));
}
