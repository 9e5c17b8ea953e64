ALTER TABLE schedules DROP COLUMN done_time;
