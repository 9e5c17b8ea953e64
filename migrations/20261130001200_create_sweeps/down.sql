DROP TABLE sweeps;
DROP TABLE sweep_candidates;
