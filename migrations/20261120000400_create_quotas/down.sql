DROP TABLE uploads, usage_counters, quotas;
