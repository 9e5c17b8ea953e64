-- A process that was paused for longer than its claim must notice that another process has claimed the blob.

SET LOCAL lock_timeout = '10s';

-- Differs in each claim. A process renews and finishes only the claim with its id, and records a result only with it.
-- Null for claims of the previous version.
ALTER TABLE blob_claims ADD COLUMN claim_id uuid;
