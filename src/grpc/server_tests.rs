//! The settings of the transport. The service tests cover the whole stack, with a real database.

use super::*;

#[test]
fn transport_accepts_every_configured_limit() {
    assert!(transport(&Config::defaults().unwrap().server).is_ok());
}

#[test]
fn unreadable_certificate_is_named() {
    let mut config = Config::defaults().unwrap().server;
    config.tls.certificate_file = Some("/nowhere/tls.crt".into());
    config.tls.key_file = Some("/nowhere/tls.key".into());
    let Err(error) = transport(&config) else { panic!("accepted") };
    assert_eq!(error.to_string(), "failed to read /nowhere/tls.crt");
}

#[test]
fn certificate_with_the_key_of_another_is_refused() {
    // Another test may have installed it first.
    let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, pem: String| {
        let path = directory.path().join(name);
        std::fs::write(&path, pem).unwrap();
        Some(path)
    };
    let [ours, others] =
        [(); 2].map(|()| rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap());
    let mut config = Config::defaults().unwrap().server;
    config.tls.certificate_file = write("tls.crt", ours.cert.pem());
    config.tls.key_file = write("tls.key", ours.signing_key.serialize_pem());
    assert!(transport(&config).is_ok());
    config.tls.key_file = write("other.key", others.signing_key.serialize_pem());
    assert!(matches!(transport(&config), Err(ServeError::Transport(_))));
}
