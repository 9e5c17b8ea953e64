-- Its body names `events`.
DROP FUNCTION IF EXISTS app.event_horizon();
DROP TABLE events;
DROP SEQUENCE event_numbers;
