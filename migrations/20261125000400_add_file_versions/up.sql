-- Files with more than one version.

-- The highest version number that was ever assigned. Numbers are never reused, even if the newest version was
-- deleted.
ALTER TABLE files ADD COLUMN last_version integer NOT NULL DEFAULT 1, ADD CHECK (last_version >= version);
ALTER TABLE versions
    ADD COLUMN change_description text NOT NULL DEFAULT '',
    -- the version that this version restored, if any
    ADD COLUMN restored_from integer;

-- Returns the allowed media types of a category, sorted: its own, or else those of the policy.
CREATE FUNCTION app.allowed_types(policy jsonb, category text) RETURNS text[]
    LANGUAGE sql STABLE
    AS $$
    SELECT array(
        SELECT DISTINCT jsonb_array_elements_text(coalesce(
            nullif(policy #> ARRAY['categories', category, 'types'], '[]'), policy -> 'types', '[]')) AS taken
        ORDER BY taken)
$$;

-- Locks the files that get a new version, in id order, and checks conditions that can have changed since the
-- uploads were admitted. The outcome of a rejected item is `file_gone` if the file does not exist,
-- `not_allowed` if the uploader may not change it, `etag_mismatch` if its etag differs from the one that the
-- upload requires (see `File::etag`), `file_deleted` if it is in the trash, `file_archived`, or
-- `category_changed` if it is in another category, which allows other types than the one that the upload was
-- checked against. Runs before leases are ended, so that the reservations of rejected uploads are released
-- like those of others.
CREATE FUNCTION app.check_new_versions(finished app.finished_upload[], outcomes text[]) RETURNS text[]
    LANGUAGE plpgsql
    AS $$
DECLARE
    tenant constant uuid := app.tenant_id();
BEGIN
    PERFORM FROM public.files AS f
    WHERE f.tenant_id = tenant AND f.id = ANY (array(SELECT n.file_id FROM unnest(finished) AS n WHERE n.is_version))
    ORDER BY f.id FOR UPDATE;
    -- A separate statement, so that it sees the changes of the previous lock holders.
    RETURN array(
        SELECT CASE
            WHEN outcomes[item] <> 'committed' OR NOT finished[item].is_version THEN outcomes[item]
            WHEN f.id IS NULL THEN 'file_gone'
            WHEN NOT finished[item].may_write_all AND f.owner_id <> finished[item].created_by THEN 'not_allowed'
            WHEN finished[item].if_etag NOT IN ('', f.version || '-' || f.revision) THEN 'etag_mismatch'
            WHEN f.delete_time IS NOT NULL THEN 'file_deleted'
            WHEN f.archive_time IS NOT NULL THEN 'file_archived'
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

-- Assigns numbers to new versions, in the order of the items, and the category under which their file is
-- counted.
CREATE FUNCTION app.assign_version_numbers(accepted app.finished_upload[]) RETURNS app.finished_upload[]
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
                  WHERE reader.tenant_id = tenant AND reader.file_id = f.id) AS readers
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

-- Makes the newest available new version of each file the current one. `file_records` contains the records
-- for the responses, by the blob id of the version. `kind_changes` contains the files that now count under
-- another media kind.
CREATE FUNCTION app.set_current_versions(accepted app.finished_upload[], OUT file_records jsonb, OUT kind_changes jsonb)
    LANGUAGE plpgsql
    AS $$
DECLARE
    tenant constant uuid := app.tenant_id();
BEGIN
    WITH n AS MATERIALIZED (
        SELECT u.*, row_number() OVER (PARTITION BY u.file_id ORDER BY u.version DESC) - 1 AS later
        FROM unnest(accepted) AS u WHERE u.is_version
    ), added AS (
        SELECT n.file_id, max(n.version) AS last_version, count(*) AS versions FROM n GROUP BY n.file_id
    ), newest AS (
        -- 2: available
        SELECT DISTINCT ON (n.file_id) n.* FROM n WHERE n.content_state = 2 ORDER BY n.file_id, n.version DESC
    ), before AS MATERIALIZED (
        SELECT f.id, f.media_kind FROM public.files AS f JOIN added ON f.id = added.file_id WHERE f.tenant_id = tenant
    ), moved AS (
        UPDATE public.files AS f SET
            last_version = added.last_version, revision = f.revision + added.versions, update_time = app.now(),
            updated_by = coalesce(newest.created_by, f.updated_by), version = coalesce(newest.version, f.version),
            content_state = coalesce(newest.content_state, f.content_state),
            state_reason = CASE WHEN newest.version IS NULL THEN f.state_reason END,
            scan_status = coalesce(newest.scan_status, f.scan_status),
            mime_type = coalesce(newest.mime_type, f.mime_type),
            declared_mime_type = coalesce(newest.declared_mime_type, f.declared_mime_type),
            media_kind = coalesce(newest.media_kind, f.media_kind),
            size_bytes = coalesce(newest.size_bytes, f.size_bytes), sha256 = coalesce(newest.sha256, f.sha256)
        FROM added LEFT JOIN newest USING (file_id)
        WHERE f.tenant_id = tenant AND f.id = added.file_id
        RETURNING f.*
    ), readers AS (
        UPDATE public.file_readers AS r SET size_bytes = newest.size_bytes FROM newest
        WHERE r.tenant_id = tenant AND r.file_id = newest.file_id
    ), records AS (
        SELECT jsonb_object_agg(n.blob_id, to_jsonb(f) || jsonb_build_object(
            'version', n.version, 'revision', f.revision - n.later,
            'tags', array(
                SELECT t.tag FROM public.file_tags AS t WHERE t.tenant_id = tenant AND t.file_id = f.id ORDER BY t.tag),
            'attachments', coalesce((
                SELECT jsonb_agg(jsonb_build_object(
                    'entity_type', a.entity_type, 'entity_id', a.entity_id, 'field', a.field)
                    ORDER BY a.entity_type, a.entity_id, a.field)
                FROM public.attachments AS a WHERE a.tenant_id = tenant AND a.file_id = f.id), '[]'))) AS file_records
        FROM n JOIN moved AS f ON f.id = n.file_id
    ), kinds AS (
        SELECT jsonb_agg(jsonb_build_object(
            'category', moved.category, 'before', before.media_kind, 'after', moved.media_kind)) AS kind_changes
        FROM moved JOIN before USING (id) WHERE before.media_kind <> moved.media_kind
    )
    SELECT records.file_records, kinds.kind_changes INTO file_records, kind_changes FROM records, kinds;
END
$$;

-- Updates the usage counters for items that include new versions. Bytes count under the media kind of each
-- version, files under that of their current version. One statement in lock order. Counters that decrease
-- must exist.
CREATE FUNCTION app.add_version_usage(accepted app.finished_upload[], kind_changes jsonb) RETURNS void
    LANGUAGE sql
    AS $$
    WITH delta AS MATERIALIZED (
        SELECT d.category COLLATE "C" AS category, d.media_kind, sum(d.files)::bigint AS files,
            sum(d.bytes)::bigint AS bytes
        FROM (
            SELECT n.category, n.media_kind, (NOT n.is_version)::integer AS files, n.size_bytes AS bytes
            FROM unnest(accepted) AS n
            UNION ALL
            SELECT m.category, side.media_kind, side.files, 0
            FROM jsonb_to_recordset(coalesce(kind_changes, '[]')) AS m (category text, before smallint, after smallint),
                LATERAL (VALUES (m.before, -1), (m.after, 1)) AS side (media_kind, files)
        ) AS d GROUP BY 1, 2 ORDER BY 1, 2
    )
    INSERT INTO public.usage_counters AS counter (tenant_id, category, media_kind, file_count, total_bytes)
    SELECT app.tenant_id(), delta.category, delta.media_kind, greatest(delta.files, 0), greatest(delta.bytes, 0)
    FROM delta ORDER BY delta.category, delta.media_kind
    ON CONFLICT (tenant_id, category, media_kind) DO UPDATE SET (file_count, total_bytes) = (
        SELECT counter.file_count + d.files, counter.total_bytes + d.bytes FROM delta AS d
        WHERE d.category = counter.category AND d.media_kind = counter.media_kind)
$$;

REVOKE ALL ON FUNCTION app.allowed_types, app.check_new_versions, app.assign_version_numbers, app.set_current_versions, app.add_version_usage
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app.allowed_types, app.check_new_versions, app.assign_version_numbers, app.set_current_versions, app.add_version_usage
    TO strongroom_app;
