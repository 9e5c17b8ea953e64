//! The transport's settings and reflection. The stack as a whole is tested by the service tests, with a real
//! database.

use super::*;

#[test]
fn the_transport_takes_every_configured_limit() {
    assert!(transport(&Config::defaults().unwrap().server).is_ok());
}

#[test]
fn a_certificate_that_cannot_be_read_is_named() {
    let mut config = Config::defaults().unwrap().server;
    config.tls.certificate_file = Some("/nowhere/tls.crt".into());
    config.tls.key_file = Some("/nowhere/tls.key".into());
    let Err(error) = transport(&config) else { panic!("accepted") };
    assert_eq!(error.to_string(), "read /nowhere/tls.crt");
}

#[test]
fn a_certificate_and_its_key_are_taken_and_those_of_others_refused() {
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
