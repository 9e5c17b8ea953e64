DROP TABLE usage_counters;
-- It returns a row of `quotas`.
DROP FUNCTION IF EXISTS app.admission_data(uuid, uuid, integer, text);
DROP TABLE quotas;
