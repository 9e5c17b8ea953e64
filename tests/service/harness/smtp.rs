//! An SMTP server of the tests: aiosmtpd, which `scripts/setup/smtp` downloads.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex},
};

use serde_json::Value;
use strongroom::config::{Config, StartTls};
use tempfile::TempDir;

/// A running SMTP server. Dropping it stops it.
pub(crate) struct SmtpServer {
    process: Child,
    port: u16,
    messages: Arc<Mutex<Vec<Value>>>,
    directory: TempDir,
}

impl SmtpServer {
    /// Starts a server with STARTTLS and a certificate of its own authority.
    pub(crate) fn start_encrypted(options: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (certificate, key) = (directory.path().join("certificate.pem"), directory.path().join("key.pem"));
        std::fs::write(&certificate, own.cert.pem()).unwrap();
        std::fs::write(&key, own.signing_key.serialize_pem()).unwrap();
        let files = ["--certificate", certificate.to_str().unwrap(), "--key", key.to_str().unwrap()];
        Self::start_in(directory, &[&files, options].concat())
    }

    /// Starts a server without encryption.
    pub(crate) fn start(options: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), options)
    }

    fn start_in(directory: TempDir, options: &[&str]) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/setup/smtp");
        let found = Command::new(script).stderr(Stdio::inherit()).output().unwrap();
        assert!(found.status.success(), "{script} failed");
        let python = String::from_utf8(found.stdout).unwrap();
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/service/harness/smtp_server.py");
        let mut command = Command::new(python.trim());
        command.arg(program).args(options).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap());
        let port = read_line(&mut lines).unwrap()["port"].as_u64().unwrap();
        let messages = Arc::new(Mutex::new(Vec::new()));
        let received = Arc::clone(&messages);
        std::thread::spawn(move || {
            while let Some(message) = read_line(&mut lines) {
                received.lock().unwrap().push(message);
            }
        });
        Self { process, port: u16::try_from(port).unwrap(), messages, directory }
    }

    /// Configures a service to use this server and to trust its certificate.
    pub(crate) fn configure(&self, config: &mut Config) {
        let smtp = &mut config.smtp;
        (smtp.host, smtp.port) = ("localhost".to_owned(), self.port);
        smtp.from = "strongroom@example.org".to_owned();
        let certificate = self.directory.path().join("certificate.pem");
        if certificate.exists() {
            smtp.ca_file = Some(certificate);
        } else {
            smtp.starttls = StartTls::None;
        }
    }

    /// Returns the accepted messages. A message is printed before it is accepted, but read by another thread.
    pub(crate) fn messages(&self) -> Vec<Value> {
        self.messages.lock().unwrap().clone()
    }
}

fn read_line(lines: &mut BufReader<ChildStdout>) -> Option<Value> {
    let mut line = String::new();
    let length = lines.read_line(&mut line).unwrap();
    (length > 0).then(|| serde_json::from_str(&line).unwrap())
}

impl Drop for SmtpServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
