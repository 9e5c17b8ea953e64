SET LOCAL lock_timeout = '10s';

DROP TABLE storage_charges;
DROP TABLE paid_downloads;
ALTER TABLE usage_measurements DROP COLUMN charged_day;
ALTER TABLE share_grants DROP COLUMN paid_credits;
ALTER TABLE tenants DROP COLUMN gib_day_credits, DROP COLUMN download_credits;
