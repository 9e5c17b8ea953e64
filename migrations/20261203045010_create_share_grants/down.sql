DROP TABLE share_grants;
