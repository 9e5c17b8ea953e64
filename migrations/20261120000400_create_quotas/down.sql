REVOKE UPDATE (provider, storage_key) ON blobs FROM strongroom_system;
DROP TABLE stray_objects, uploads, usage_counters, quotas;
