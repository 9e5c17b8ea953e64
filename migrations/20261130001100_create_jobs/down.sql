DROP TABLE schedules;
DROP TABLE finished_jobs;
DROP TABLE jobs;
