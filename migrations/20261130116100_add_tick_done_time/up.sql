-- When a tick last ended without an error. `last_time` is the time of its last start, which says nothing about a
-- tick that never ends. Schedules that exist already begin with the time of the migration.
ALTER TABLE schedules ADD COLUMN done_time timestamptz NOT NULL DEFAULT now();
