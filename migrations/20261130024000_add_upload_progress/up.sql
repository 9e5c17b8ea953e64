-- Progress of uploads: only new parts renew the lease, so an upload that makes no progress expires.

-- The highest number of parts that renewed the lease: the number of the last new part of an upload, or the
-- number of complete parts of a direct upload at its last completion.
ALTER TABLE uploads ADD COLUMN renewed_part_count integer NOT NULL DEFAULT 0 CHECK (renewed_part_count >= 0);
-- How often the upload began again, because parts in the store were damaged. Limits how often the same parts renew
-- the lease.
ALTER TABLE uploads ADD COLUMN restart_count integer NOT NULL DEFAULT 0 CHECK (restart_count >= 0);
