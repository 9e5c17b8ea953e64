DROP TABLE storage_breakers;
