DROP INDEX files_to_delete;
