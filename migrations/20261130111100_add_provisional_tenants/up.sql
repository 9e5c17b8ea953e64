-- Tenants none of whose first calls has succeeded yet. They do not exist for callers and operators, and are removed
-- when all of their first calls have failed.

ALTER TABLE tenants
    -- the start of the latest first call; null for a tenant that exists
    ADD COLUMN provisional_time timestamptz,
    -- the first calls in progress
    ADD COLUMN first_call_count integer NOT NULL DEFAULT 0 CHECK (first_call_count >= 0),
    -- whether a first call may have left objects in a store
    ADD COLUMN may_have_objects boolean NOT NULL DEFAULT false;
-- Query `list provisional tenants`.
CREATE INDEX tenants_provisional ON tenants (id) WHERE provisional_time IS NOT NULL;
GRANT UPDATE (provisional_time, first_call_count, may_have_objects) ON tenants TO strongroom_system;
