DROP TABLE scrubs;
DROP TABLE blob_claims;
DROP INDEX blobs_to_scrub;
ALTER TABLE blobs DROP COLUMN last_verified_time;
