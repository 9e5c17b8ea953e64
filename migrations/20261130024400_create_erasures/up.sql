-- Erasures for a legal duty, which override the retention of files.

-- Requests of operators to erase a file or a whole tenant before its retention ends. Takes effect only after
-- another operator approved it, and until it expires. A legal hold is never overridden.
CREATE TABLE erasures (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    -- null for the whole tenant
    file_id uuid,
    reason text NOT NULL CHECK (reason <> ''),
    -- the operator: the subject, and the issuer that named it
    requested_by text COLLATE "C" NOT NULL,
    requested_by_issuer text COLLATE "C" NOT NULL,
    request_time timestamptz NOT NULL,
    -- another subject, because one person may have accounts at several issuers
    approved_by text COLLATE "C" CHECK (approved_by <> requested_by),
    approved_by_issuer text COLLATE "C",
    approve_time timestamptz,
    expire_time timestamptz NOT NULL,
    -- the time of the purge of the file, or of the start of the deletion of the tenant
    use_time timestamptz,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT erasures_approved CHECK (
        (approved_by IS NULL) = (approve_time IS NULL) AND (approved_by IS NULL) = (approved_by_issuer IS NULL)),
    CONSTRAINT erasures_used CHECK (use_time IS NULL OR approve_time IS NOT NULL)
);
CALL app.protect('erasures');
GRANT INSERT ON erasures TO strongroom_app;
GRANT UPDATE (approved_by, approved_by_issuer, approve_time, expire_time, use_time) ON erasures TO strongroom_app;
