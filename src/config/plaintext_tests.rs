//! Tests of the rule that clear-text listeners are limited to the loopback interface.

use std::io::Write as _;

use super::*;

fn load(text: &str) -> Result<Config, ConfigError> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    Config::load(ConfigSources { file: Some(file.path().to_owned()), env: std::iter::empty() })
}

#[test]
fn plaintext_beyond_loopback_must_be_allowed() {
    let listen_keys = |file: &str| {
        let error = load(file).unwrap().validate_for_serve().unwrap_err();
        let found = error.problems().iter().map(|problem| problem.key.clone());
        found.filter(|key| key.ends_with(".listen")).collect::<Vec<_>>()
    };
    let listen =
        |address: &str| format!("[server]\nlisten = \"{address}:1\"\n[edge]\nlisten = \"{address}:2\"\n");
    for loopback in ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]"] {
        assert!(listen_keys(&listen(loopback)).is_empty(), "{loopback}");
    }
    for public in ["0.0.0.0", "[::]", "192.0.2.1"] {
        assert_eq!(listen_keys(&listen(public)), ["server.listen", "edge.listen"], "{public}");
    }
    let tls = "[server.tls]\ncertificate_file = \"a.pem\"\nkey_file = \"b.pem\"\n";
    assert_eq!(listen_keys(tls), ["edge.listen"]);
    assert!(listen_keys("[server]\nallow_plaintext = true\n[edge]\nallow_plaintext = true\n").is_empty());
}
