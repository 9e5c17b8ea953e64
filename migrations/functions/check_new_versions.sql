-- Locks the files that get a new version, in id order, and checks conditions that can have changed since the
-- uploads were admitted. The outcome of a rejected item is `file_gone` if the file does not exist or the
-- uploader may not see it, `not_allowed` if the uploader may not change it, `etag_mismatch` if its etag differs
-- from the one that the upload requires (see `File::etag`), `file_deleted` if it is in the trash,
-- `file_archived`, `too_many_versions` if it already has `version_count_max` versions with those of earlier
-- items, or `category_changed` if it is in another category, which allows other types than the one that the
-- upload was checked against. Runs before leases are ended, so that the reservations of rejected uploads are
-- released like those of others.
--
-- `may_write_all` comes from the policy that the process has cached, so the tenant's policy is read again. It does not
-- include files that the uploader sees only by a grant.
CREATE OR REPLACE FUNCTION app.check_new_versions(finished app.finished_upload[], outcomes text[]) RETURNS text[]
    LANGUAGE plpgsql
    AS $$
DECLARE
    tenant constant uuid := app.tenant_id();
BEGIN
    PERFORM app.lock_files(tenant, array(SELECT n.file_id FROM unnest(finished) AS n WHERE n.is_version));
    -- A separate statement, so that it sees the changes of the previous lock holders.
    RETURN array(
        SELECT CASE
            WHEN outcomes[item] <> 'committed' OR NOT finished[item].is_version THEN outcomes[item]
            WHEN f.id IS NULL OR NOT app.can_see_file(f, finished[item]) THEN 'file_gone'
            WHEN f.owner_id <> finished[item].created_by AND NOT (finished[item].may_write_all
                AND (coalesce(finished[item].audience_min, {visibility.owner}) = {visibility.owner}
                     OR (SELECT t.policy ->> 'write' = 'members' FROM public.tenants AS t WHERE t.id = tenant))
                AND (f.audience >= coalesce(finished[item].audience_min, {visibility.owner})
                     OR EXISTS (
                        SELECT FROM public.file_readers AS reader
                        WHERE reader.tenant_id = tenant AND reader.file_id = f.id AND reader.is_by_policy
                          AND reader.principal = ANY (finished[item].principals))))
                THEN 'not_allowed'
            WHEN finished[item].if_etag NOT IN ('', f.version || '-' || f.revision) THEN 'etag_mismatch'
            WHEN f.delete_time IS NOT NULL THEN 'file_deleted'
            WHEN f.archive_time IS NOT NULL THEN 'file_archived'
            WHEN finished[item].version_count_max < (
                SELECT count(*) FROM (
                    SELECT FROM public.versions AS v WHERE v.tenant_id = tenant AND v.file_id = f.id
                    LIMIT finished[item].version_count_max) AS existing
            ) + (
                SELECT count(*) FROM generate_subscripts(finished, 1) AS earlier
                WHERE earlier <= item AND finished[earlier].is_version AND finished[earlier].file_id = f.id
            ) THEN 'too_many_versions'
            WHEN finished[item].category <> f.category AND (
                SELECT app.allowed_types(t.policy, finished[item].category) <> app.allowed_types(t.policy, f.category)
                FROM public.tenants AS t WHERE t.id = tenant) THEN 'category_changed'
            ELSE 'committed'
        END
        FROM generate_subscripts(finished, 1) AS item
        LEFT JOIN public.files AS f ON f.tenant_id = tenant AND f.id = finished[item].file_id
        ORDER BY item);
END
$$;
REVOKE ALL ON FUNCTION app.check_new_versions FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app.check_new_versions TO strongroom_app;
