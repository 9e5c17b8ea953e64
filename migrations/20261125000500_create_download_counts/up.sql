-- Download counts and last access times of files. They are in a separate table, because a download must
-- change neither the etag nor the update time of the file. They are written in batches, a few seconds after
-- the downloads.
CREATE TABLE download_counts (
    tenant_id uuid NOT NULL,
    file_id uuid NOT NULL,
    download_count bigint NOT NULL CHECK (download_count >= 0),
    last_access_time timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, file_id),
    FOREIGN KEY (tenant_id, file_id) REFERENCES files (tenant_id, id)
) WITH (fillfactor = 50);
CALL app.protect('download_counts');
-- A purge deletes the row; only strongroom_system writes it.
GRANT DELETE ON download_counts TO strongroom_app;
GRANT INSERT, UPDATE ON download_counts TO strongroom_system;
