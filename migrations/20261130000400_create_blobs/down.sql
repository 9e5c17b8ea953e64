DROP TABLE stray_objects;
DROP TABLE blobs;
