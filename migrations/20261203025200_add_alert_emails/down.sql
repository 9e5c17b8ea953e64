ALTER TABLE quota_alerts DROP COLUMN emailed;
ALTER TABLE quotas DROP COLUMN alert_emails;
