//! E-mails for quota alerts, sent to a real SMTP server.

use chrono::Duration;
use strongroom::{
    config::{Config, StartTls},
    proto::v1::{ListQuotaAlertsRequest, Quota, QuotaAlert},
    worker,
};
use tonic::Code;

use crate::harness::{
    Service, SmtpServer, file_id, reason, service_test, service_test_with, spec, violated_fields,
};

const OPS: &str = "ops@example.org";
const FINANCE: &str = "finance@example.org";

async fn set_addresses(s: &Service, addresses: &[&str]) {
    let alert_emails = addresses.iter().map(|address| (*address).to_owned()).collect();
    let quota = Quota { limit_bytes: 1000, alert_emails, ..Quota::default() };
    s.ada().update_quota("", quota, &["limit_bytes", "alert_emails"]).await.unwrap();
}

/// Uploads 900 of 1,000 bytes. Returns the id of the file.
async fn raise_alert(s: &Service) -> String {
    file_id(&s.alice().upload(spec("a"), &[1; 900]).await.unwrap())
}

async fn list_alerts(s: &Service) -> Vec<QuotaAlert> {
    let request = ListQuotaAlertsRequest::default();
    s.ada().quotas.clone().list_quota_alerts(request).await.unwrap().into_inner().alerts
}

/// Waits until the server has printed this number of messages, and returns their addresses in order.
async fn wait_for_messages(s: &Service, server: &SmtpServer, count: usize) -> Vec<String> {
    s.wait_until("messages arrive", || async { server.messages().len() >= count }).await;
    let mut addresses: Vec<String> =
        server.messages().iter().map(|message| message["to"][0].as_str().unwrap().to_owned()).collect();
    addresses.sort();
    addresses
}

/// Runs the job, which must fail with this text.
async fn assert_fails(s: &Service, text: &str) {
    worker::run_due_jobs(&s.app).await;
    let errors = s.superuser.query_texts("SELECT last_error FROM jobs WHERE kind = 'send_quota_alert'").await;
    assert!(errors.len() == 1 && errors[0].contains(text), "{errors:?}");
}

#[test]
fn alert_is_sent_encrypted_and_authenticated() {
    let server = &SmtpServer::start_encrypted(&["--user", "mailer", "--password", "s3cret"]);
    let configure = |config: &mut Config| {
        server.configure(config);
        (config.smtp.username, config.smtp.password) = ("mailer".to_owned(), Some("s3cret".into()));
    };
    service_test_with(configure, |s| async move {
        set_addresses(&s, &[OPS, FINANCE]).await;
        raise_alert(&s).await;
        assert_eq!(worker::run_due_jobs(&s.app).await.done, 1);
        assert_eq!(wait_for_messages(&s, server, 2).await, [FINANCE, OPS]);
        let message = &server.messages()[0];
        assert_eq!((&message["is_encrypted"], &message["user"]), (&true.into(), &"mailer".into()));
        assert_eq!(message["from"], "strongroom@example.org");
        let text = message["text"].as_str().unwrap();
        let [alert] = list_alerts(&s).await.try_into().unwrap();
        assert!(text.contains("is 80 % full (warning)") && text.contains(&alert.id), "{text}");
        assert!(text.contains("900 bytes"), "{text}");
        assert_eq!(alert.email_count, 2);
    });
}

#[test]
fn refused_message_is_sent_again_to_its_address_only() {
    let server = &SmtpServer::start_encrypted(&["--refuse", "1"]);
    service_test_with(
        |config| server.configure(config),
        |s| async move {
            set_addresses(&s, &[OPS, FINANCE]).await;
            raise_alert(&s).await;
            assert_fails(&s, "451").await;
            assert_eq!(wait_for_messages(&s, server, 1).await, [FINANCE]);
            assert_eq!(list_alerts(&s).await[0].email_count, 1);
            s.clock.advance(Duration::hours(1));
            assert_eq!(worker::run_due_jobs(&s.app).await.done, 1);
            assert_eq!(wait_for_messages(&s, server, 2).await, [FINANCE, OPS]);
            assert_eq!(list_alerts(&s).await[0].email_count, 2);
        },
    );
}

#[test]
fn nothing_is_sent_without_required_encryption() {
    let server = &SmtpServer::start(&[]);
    let configure = |config: &mut Config| {
        server.configure(config);
        config.smtp.starttls = StartTls::Required;
    };
    service_test_with(configure, |s| async move {
        s.allow_failed_jobs();
        set_addresses(&s, &[OPS]).await;
        raise_alert(&s).await;
        assert_fails(&s, "mail server did not accept").await;
        assert!(server.messages().is_empty());
    });
}

#[test]
fn server_with_unknown_certificate_gets_nothing() {
    let server = &SmtpServer::start_encrypted(&[]);
    let configure = |config: &mut Config| {
        server.configure(config);
        config.smtp.ca_file = None;
    };
    service_test_with(configure, |s| async move {
        s.allow_failed_jobs();
        set_addresses(&s, &[OPS]).await;
        raise_alert(&s).await;
        assert_fails(&s, "mail server did not accept").await;
        assert!(server.messages().is_empty());
    });
}

#[test]
fn server_that_does_not_respond_ends_the_attempt() {
    let server = &SmtpServer::start(&["--hang"]);
    let configure = |config: &mut Config| {
        server.configure(config);
        config.smtp.timeout_seconds = 1;
    };
    service_test_with(configure, |s| async move {
        s.allow_failed_jobs();
        set_addresses(&s, &[OPS]).await;
        raise_alert(&s).await;
        worker::run_due_jobs(&s.app).await;
        let failed = "SELECT count(*) FROM jobs WHERE kind = 'send_quota_alert' AND last_error <> ''";
        assert_eq!(s.superuser.query_number(failed).await, 1);
    });
}

#[test]
fn addresses_need_a_mail_server() {
    service_test(|s| async move {
        let quota = Quota { alert_emails: vec![OPS.to_owned()], ..Quota::default() };
        let error = s.ada().update_quota("", quota, &["alert_emails"]).await.unwrap_err();
        assert_eq!(
            (error.code(), reason(&error).as_str()),
            (Code::FailedPrecondition, "EMAIL_NOT_CONFIGURED")
        );
        s.ada().update_quota("", Quota::default(), &["alert_emails"]).await.unwrap();
        s.ada().set_limit_bytes(1000).await;
        raise_alert(&s).await;
        assert_eq!(s.superuser.query_number("SELECT count(*) FROM jobs").await, 0);
    });
}

#[test]
fn addresses_are_checked_and_hidden_from_members() {
    let server = &SmtpServer::start(&[]);
    service_test_with(
        |config| server.configure(config),
        |s| async move {
            set_addresses(&s, &[OPS]).await;
            assert_eq!(s.ada().quota().await.unwrap().alert_emails, [OPS]);
            assert!(s.alice().quota().await.unwrap().alert_emails.is_empty());
            let wrong = ["a@example.org\r\nBcc: b@example.org", OPS, OPS];
            let alert_emails = wrong.map(str::to_owned).to_vec();
            let quota = Quota { alert_emails, ..Quota::default() };
            let error = s.ada().update_quota("", quota, &["alert_emails"]).await.unwrap_err();
            assert_eq!(violated_fields(&error), ["quota.alert_emails[0]", "quota.alert_emails[2]"]);
            let many = (0..11).map(|n| format!("a{n}@example.org")).collect();
            let quota = Quota { alert_emails: many, ..Quota::default() };
            let error = s.ada().update_quota("", quota, &["alert_emails"]).await.unwrap_err();
            assert_eq!(violated_fields(&error), ["quota.alert_emails"]);
        },
    );
}

#[test]
fn each_address_gets_24_messages_a_day_at_most() {
    let server = &SmtpServer::start(&[]);
    service_test_with(
        |config| server.configure(config),
        |s| async move {
            set_addresses(&s, &[OPS]).await;
            let cross = "DO $$ BEGIN FOR n IN 1..30 LOOP
                             UPDATE quotas SET used_bytes = 900 WHERE limit_bytes = 1000;
                             UPDATE quotas SET used_bytes = 0 WHERE limit_bytes = 1000;
                         END LOOP; END $$";
            s.superuser.execute(cross).await;
            assert_eq!(s.superuser.query_number("SELECT count(*) FROM jobs").await, 24);
            s.superuser.execute("DELETE FROM jobs").await;
        },
    );
}
