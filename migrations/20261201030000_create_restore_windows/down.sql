DROP TABLE quarantined_objects;
DROP TABLE restore_windows;
