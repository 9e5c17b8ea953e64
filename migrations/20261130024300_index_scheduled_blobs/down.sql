DROP INDEX blobs_scheduled;
