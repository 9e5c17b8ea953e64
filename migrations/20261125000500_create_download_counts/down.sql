DROP TABLE download_counts;
