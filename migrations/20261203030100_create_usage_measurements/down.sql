DROP TABLE usage_samples;
DROP TABLE owner_usage;
DROP TABLE usage_measurements;
