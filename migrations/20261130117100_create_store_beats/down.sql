DROP TABLE store_beats;
DROP TABLE installations;
