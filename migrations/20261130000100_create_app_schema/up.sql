-- The schema of the functions, and the functions that the tables of the other migrations need: those that
-- policies call, and those that the migrations call themselves. All other functions are created after the
-- migrations.
CREATE SCHEMA app;
GRANT USAGE ON SCHEMA app TO strongroom_app, strongroom_system, strongroom_backup;

{function.tenant_id}
{function.user_id}
{function.audience_min}
{function.principals}
{function.protect}
{function.create_partitions}
