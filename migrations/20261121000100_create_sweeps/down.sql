DROP TABLE sweeps, sweep_candidates;
