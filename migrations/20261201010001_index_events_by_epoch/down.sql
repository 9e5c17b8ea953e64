DROP INDEX events_by_epoch;
