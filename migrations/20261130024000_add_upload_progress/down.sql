ALTER TABLE uploads DROP COLUMN renewed_part_count;
