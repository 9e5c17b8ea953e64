-- How often a file was downloaded, and when last. A table of its own, because a download must change neither the file's
-- etag nor its update time; written in batches by what serves, seconds after the downloads.
CREATE TABLE download_counts (
    tenant_id uuid NOT NULL,
    file_id uuid NOT NULL,
    download_count bigint NOT NULL CHECK (download_count >= 0),
    last_access_time timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, file_id),
    FOREIGN KEY (tenant_id, file_id) REFERENCES files (tenant_id, id)
) WITH (fillfactor = 50);
CALL app.protect('download_counts');
-- A purge takes the count along; only the system counts.
GRANT DELETE ON download_counts TO strongroom_app;
GRANT INSERT, UPDATE ON download_counts TO strongroom_system;
