-- E-mails for quota alerts, sent by jobs that the trigger `usage_crossed` enqueues.

SET LOCAL lock_timeout = '10s';

-- The addresses that get an e-mail for each alert. Not a table of its own, because the trigger reads them with the quota.
ALTER TABLE quotas ADD COLUMN alert_emails text[] COLLATE "C" NOT NULL DEFAULT '{}' CHECK (cardinality(alert_emails) <= 10);
-- The addresses to which the e-mail was sent, so that a retry sends it to the others only.
ALTER TABLE quota_alerts ADD COLUMN emailed text[] COLLATE "C" NOT NULL DEFAULT '{}';
GRANT UPDATE (emailed) ON quota_alerts TO strongroom_app;
