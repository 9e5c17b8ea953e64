-- A repeated completion of a direct upload is compared with the first one.

SET LOCAL lock_timeout = '10s';

-- What the client named when it completed a direct upload: the digest of the content, and digests of the etags of the
-- parts. Null for other uploads and for completions by the previous version.
ALTER TABLE uploads ADD COLUMN completion jsonb;
