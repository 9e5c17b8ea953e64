ALTER TABLE uploads DROP COLUMN owner_id;
ALTER TABLE quotas DROP COLUMN user_quota_count;
DROP TABLE user_quotas;
