//! Sends the e-mails of a quota alert. A job does it, so that it is retried until the mail server accepts them.

use crate::{
    app::{
        App, Error,
        mail::{Mail, send_mail},
    },
    db::{Viewer, quota_alerts, quotas, tenant_records},
    domain::{
        ids::TenantId,
        quota_alert::{AlertLevel, QuotaAlert},
    },
};

/// The number of characters of a tenant's name in an e-mail.
const NAME_CHARACTERS_MAX: usize = 100;

/// Sends the e-mail of an alert to each address of the tenant that has not received it. If one address fails,
/// the others still receive it.
///
/// # Errors
/// Returns the last error of the mail server, and `EmailNotConfigured` if there is none. The job then runs again.
pub async fn send_quota_alert(app: &App, tenant: TenantId, number: i64) -> Result<(), Error> {
    let mut tx = app.db.tenant_tx(tenant, &Viewer::system()).await?;
    let read = async { Ok((quota_alerts::get(&mut tx, number).await?, quotas::get(&mut tx).await?)) }.await;
    let (Some(alert), quota) = tx.finish::<_, Error>(read).await? else { return Ok(()) };
    let unsent: Vec<String> =
        quota.alert_emails.into_iter().filter(|address| !alert.emailed.contains(address)).collect();
    if unsent.is_empty() {
        return Ok(());
    }
    if !app.limits.smtp.is_configured() {
        return Err(Error::EmailNotConfigured);
    }
    let name = get_tenant_name(app, tenant).await?;
    let mut failure = None;
    for address in unsent {
        let mail = compose_mail(&alert, tenant, &name, address);
        if let Err(error) = send_mail(&app.limits.smtp, &mail).await {
            failure = Some(error);
            continue;
        }
        let mut tx = app.db.tenant_tx(tenant, &Viewer::system()).await?;
        let recorded = quota_alerts::add_emailed(&mut tx, number, &mail.to).await;
        tx.finish(recorded).await?;
    }
    failure.map_or(Ok(()), |error| Err(Error::internal(error)))
}

async fn get_tenant_name(app: &App, tenant: TenantId) -> Result<String, Error> {
    let mut tx = app.db.tenant_tx(tenant, &Viewer::system()).await?;
    let record = tenant_records::get_own(&mut tx).await;
    Ok(tx.finish(record).await?.external_id)
}

fn compose_mail(alert: &QuotaAlert, tenant: TenantId, name: &str, to: String) -> Mail {
    let level = match alert.level {
        AlertLevel::Critical => "critical",
        AlertLevel::None | AlertLevel::Warning => "warning",
    };
    let name = to_one_line(name);
    let QuotaAlert { threshold_percent, used_bytes, limit_bytes, create_time, .. } = alert;
    Mail {
        to,
        // The same in each attempt, so that a mail program can recognize a repeated one.
        message_id: format!("quota-alert-{}", alert.id),
        subject: format!("Storage of {name} is {threshold_percent} % full ({level})"),
        body: format!(
            "The storage of {name} has reached {threshold_percent} % of its limit.\n\n\
             Level:   {level}\n\
             Used:    {used_bytes} bytes\n\
             Limit:   {limit_bytes} bytes\n\
             Time:    {}\n\
             Tenant:  {tenant}\n\n\
             Purge files that are no longer needed, or ask the operator for a higher limit. The next e-mail about this\n\
             threshold is sent after the usage has fallen two percentage points below it and reached it again.\n",
            create_time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        ),
    }
}

/// Returns a name without control characters, so that it can add no line to a header or to the body.
fn to_one_line(name: &str) -> String {
    let printable = |c: char| if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') { ' ' } else { c };
    name.chars().take(NAME_CHARACTERS_MAX).map(printable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        app::mail::build_message,
        domain::{clock::Timestamp, ids::QuotaAlertId},
    };

    #[test]
    fn tenant_name_adds_no_header() {
        let alert = QuotaAlert {
            number: 1,
            id: QuotaAlertId::from_uuid(uuid::Uuid::nil()),
            level: AlertLevel::Warning,
            threshold_percent: 80,
            used_bytes: 800,
            limit_bytes: 1000,
            create_time: Timestamp::default(),
            emailed: Vec::new(),
        };
        let tenant = TenantId::from_uuid(uuid::Uuid::nil());
        for name in ["a\r\nBcc: evil@example.org\r\n\r\nx", "a\nBcc: evil@example.org", "a\u{2028}Bcc: x"] {
            let mail = compose_mail(&alert, tenant, name, "ops@example.org".to_owned());
            let message = build_message("from@example.org", &mail).unwrap();
            let text = String::from_utf8(message.formatted()).unwrap();
            let (headers, _) = text.split_once("\r\n\r\n").unwrap();
            assert!(!headers.lines().any(|line| line.to_ascii_lowercase().starts_with("bcc")), "{headers}");
            let recipients: Vec<String> = message.envelope().to().iter().map(ToString::to_string).collect();
            assert_eq!(recipients, ["ops@example.org"]);
        }
    }
}
