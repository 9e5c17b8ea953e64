ALTER TABLE uploads DROP COLUMN completion;
