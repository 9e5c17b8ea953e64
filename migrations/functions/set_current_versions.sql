-- Makes the newest available new version of each file the current one. `file_records` contains the records
-- for the responses, by the blob id of the version. `kind_changes` contains the files that now count under
-- another media kind.
CREATE OR REPLACE FUNCTION app.set_current_versions(accepted app.finished_upload[], OUT file_records jsonb, OUT kind_changes jsonb)
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
        SELECT DISTINCT ON (n.file_id) n.* FROM n WHERE n.content_state = {content_state.available} ORDER BY n.file_id, n.version DESC
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
REVOKE ALL ON FUNCTION app.set_current_versions FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app.set_current_versions TO strongroom_app;
