//! Sends e-mails through the configured mail server.

use std::io;

use lettre::{
    AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor,
    message::{Mailbox, header::ContentType},
    transport::smtp::{
        authentication::Credentials,
        client::{Certificate, Tls, TlsParameters},
    },
};
use secrecy::ExposeSecret as _;
use tokio::time::timeout;

use crate::config::{SmtpConfig, StartTls};

/// An e-mail to one address.
#[derive(Debug)]
pub(super) struct Mail {
    pub(super) to: String,
    /// The part of the message id before the `@`.
    pub(super) message_id: String,
    pub(super) subject: String,
    pub(super) body: String,
}

/// Why an e-mail was not sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum MailError {
    #[error("address of an e-mail is invalid")]
    Address(#[from] lettre::address::AddressError),
    #[error("failed to build e-mail")]
    Message(#[from] lettre::error::Error),
    #[error("mail server did not accept the e-mail")]
    Smtp(#[from] lettre::transport::smtp::Error),
    #[error("failed to read `smtp.ca_file`")]
    CaFile(#[from] io::Error),
    #[error("mail server did not accept the e-mail within {0} s")]
    TimedOut(u64),
}

/// Sends an e-mail. It may be sent although this fails, if the response of the server is lost.
///
/// # Errors
/// Returns an error if the server does not accept the e-mail within the timeout.
pub(super) async fn send_mail(config: &SmtpConfig, mail: &Mail) -> Result<(), MailError> {
    let message = build_message(&config.from, mail)?;
    let transport = build_transport(config).await?;
    match timeout(config.timeout(), transport.send(message)).await {
        Ok(sent) => Ok(sent.map(|_| ())?),
        Err(_) => Err(MailError::TimedOut(config.timeout_seconds)),
    }
}

/// Builds the message. The library encodes line breaks and other characters that a header cannot contain.
pub(super) fn build_message(from: &str, mail: &Mail) -> Result<Message, MailError> {
    let from: Mailbox = from.parse()?;
    let id = format!("<{}@{}>", mail.message_id, from.email.domain());
    Ok(Message::builder()
        .from(from)
        .to(mail.to.parse()?)
        .message_id(Some(id))
        .subject(&mail.subject)
        .header(ContentType::TEXT_PLAIN)
        .body(mail.body.clone())?)
}

async fn build_transport(config: &SmtpConfig) -> Result<AsyncSmtpTransport<Tokio1Executor>, MailError> {
    let tls = match config.starttls {
        StartTls::Required => Tls::Required(tls_parameters(config).await?),
        StartTls::Opportunistic => Tls::Opportunistic(tls_parameters(config).await?),
        StartTls::None => Tls::None,
    };
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&config.host)
        .port(config.port)
        .timeout(Some(config.timeout()))
        .tls(tls);
    if let Some(password) = &config.password {
        let password = password.expose_secret().to_owned();
        builder = builder.credentials(Credentials::new(config.username.clone(), password));
    }
    Ok(builder.build())
}

async fn tls_parameters(config: &SmtpConfig) -> Result<TlsParameters, MailError> {
    let mut builder = TlsParameters::builder(config.host.clone());
    if let Some(path) = &config.ca_file {
        builder = builder.add_root_certificate(Certificate::from_pem(&tokio::fs::read(path).await?)?);
    }
    Ok(builder.build()?)
}
