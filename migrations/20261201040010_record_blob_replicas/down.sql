DROP TABLE replications;
DROP INDEX versions_lost;
DROP INDEX blobs_replica_key;
DROP INDEX blobs_replicas_to_scrub;
DROP INDEX blobs_to_replicate;
ALTER TABLE blobs DROP CONSTRAINT blobs_replica;
ALTER TABLE blobs DROP COLUMN replica_verified_time;
ALTER TABLE blobs DROP COLUMN replica_key;
ALTER TABLE blobs DROP COLUMN replica_provider;
