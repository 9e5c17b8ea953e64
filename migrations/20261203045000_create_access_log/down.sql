DROP TABLE visitor_attempts;
DROP TABLE access_log;
DROP SEQUENCE access_log_numbers;
