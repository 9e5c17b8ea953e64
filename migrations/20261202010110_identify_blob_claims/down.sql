ALTER TABLE blob_claims DROP COLUMN claim_id;
