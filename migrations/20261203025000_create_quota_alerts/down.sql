DROP TRIGGER usage_crossed ON quotas;
ALTER TABLE quotas DROP COLUMN last_warning_sent_time;
ALTER TABLE quotas DROP COLUMN alert_count;
ALTER TABLE quotas DROP COLUMN alert_below_bytes;
ALTER TABLE quotas DROP COLUMN alert_above_bytes;
ALTER TABLE quotas DROP COLUMN alert_level;
DROP TABLE quota_alerts;
