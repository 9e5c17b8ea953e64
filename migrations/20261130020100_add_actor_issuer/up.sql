-- The issuer that named the operator of an audit entry. Null for other actors: the issuer of a member is that of
-- its tenant.
SET LOCAL lock_timeout = '10s';
ALTER TABLE audit_entries ADD COLUMN actor_issuer text COLLATE "C";
