-- Updates the usage counters for items that include new versions. Bytes count under the media kind of each
-- version, files under that of their current version. One statement in lock order. Counters that decrease
-- must exist.
CREATE OR REPLACE FUNCTION app.add_version_usage(accepted app.finished_upload[], kind_changes jsonb) RETURNS void
    LANGUAGE plpgsql
    AS $$
BEGIN
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
        WHERE d.category = counter.category AND d.media_kind = counter.media_kind);
END
$$;
REVOKE ALL ON FUNCTION app.add_version_usage FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app.add_version_usage TO strongroom_app;
