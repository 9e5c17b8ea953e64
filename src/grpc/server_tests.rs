//! The transport's settings and reflection. The stack as a whole is tested by the service tests, with a real database.

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
