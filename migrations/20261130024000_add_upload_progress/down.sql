ALTER TABLE uploads DROP COLUMN restart_count;
ALTER TABLE uploads DROP COLUMN renewed_part_count;
