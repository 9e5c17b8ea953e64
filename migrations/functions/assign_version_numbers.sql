-- Assigns numbers to new versions, in the order of the items, and the category under which their file is
-- counted.
CREATE OR REPLACE FUNCTION app.assign_version_numbers(accepted app.finished_upload[]) RETURNS app.finished_upload[]
    LANGUAGE plpgsql
    AS $$
DECLARE
    tenant constant uuid := app.tenant_id();
    target record;
BEGIN
    FOR target IN
        SELECT item, f.category, f.owner_id, f.visibility,
            f.last_version + row_number() OVER (PARTITION BY f.id ORDER BY item) AS version,
            array(SELECT reader.principal FROM public.file_readers AS reader
                  WHERE reader.tenant_id = tenant AND reader.file_id = f.id
                    AND reader.view_end_time > app.now()) AS readers
        FROM generate_subscripts(accepted, 1) AS item
        JOIN public.files AS f ON f.tenant_id = tenant AND f.id = accepted[item].file_id
        WHERE accepted[item].is_version
    LOOP
        accepted[target.item].version := target.version;
        accepted[target.item].category := target.category;
        -- For the visibility of the event.
        accepted[target.item].owner_id := target.owner_id;
        accepted[target.item].visibility := target.visibility;
        accepted[target.item].readers := target.readers;
    END LOOP;
    RETURN accepted;
END
$$;
REVOKE ALL ON FUNCTION app.assign_version_numbers FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app.assign_version_numbers TO strongroom_app;
