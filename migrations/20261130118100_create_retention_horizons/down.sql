-- Its body names the table.
DROP FUNCTION IF EXISTS app.event_horizon();
DROP TABLE app.retention_horizons;
