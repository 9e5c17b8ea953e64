DROP TRIGGER limit_shares ON file_grants;
DROP INDEX file_grants_by_recipient;
DROP FUNCTION app.limit_shares_to_source();
DROP TABLE shares;
