-- The two calls of every upload, each one round trip: what it may store, and the commit of what it stored. Statement by
-- statement the commit took fourteen round trips, and a small file spent most of its time in them. Both run with the
-- caller's rights, so row-level security binds every statement in them.

-- A finished upload. Texts and numbers are the columns of their names.
CREATE TYPE app.finished_upload AS (
    file_id uuid,
    owner_id text,
    -- of an imported file, which was there before this service had it; otherwise null
    file_create_time timestamptz,
    import_source text,
    import_sha256 bytea,
    import_legacy_id text,
    created_by text,
    name text,
    category text,
    title text,
    description text,
    metadata jsonb,
    visibility smallint,
    -- assigned by the commit where `is_version`: a further content of the file `file_id`, whose record stays as it is
    version integer,
    is_version boolean,
    -- whether the uploader may change files of others
    may_write_all boolean,
    -- the etag that the file of a version must have; empty for any
    if_etag text,
    change_description text,
    content_state smallint,
    scan_status smallint,
    mime_type text,
    declared_mime_type text,
    media_kind smallint,
    expire_time timestamptz,
    retain_until_time timestamptz,
    retention_days integer,
    tags text[],
    -- [{entity_type, entity_id, field}]
    attachments jsonb,
    -- principals that may read it
    readers text[],
    blob_id uuid,
    provider text,
    storage_key text,
    size_bytes bigint,
    sha256 bytea,
    crc64nvme bytea,
    actor_kind smallint,
    actor_id text,
    audit_action smallint,
    audit_request_id text,
    audit_address text,
    audit_details jsonb,
    event_kind smallint,
    -- the reservation that it settles, if it has one
    lease_id uuid,
    lease_epoch integer,
    -- what its answer is stored under, if the caller gave an id
    request_id uuid,
    method smallint,
    payload_sha256 bytea,
    -- the answer without what only the commit knows, which is stored beside it: the file's times and the quota
    answer jsonb
);

-- Commits finished uploads of the transaction's tenant, in the one order of every commit, which is also the order of
-- locks: request ids, files that get a version, uploads, blob, file, version, tags, attachments, readers, audit, event, import, usage counter, and the
-- quota row last; the answer tells the quota, so it is written behind it.
--
-- `verdicts` are in the order of the items: 1 committed at `create_time`; 2 answered before, with what `answered` holds under
-- its request id; 3 someone else is working on this request id; 4 the lease was lost or has run out; 5 to 10 as
-- `app.judge_versions` says. When `fits` is false the sum does not fit into the quota, and the caller must roll back.
-- `facts` tells the file of each version, and `event_positions` where the event of each item stands, as
-- src/domain/event_position.rs writes it; both by blob.
--
-- Few statements, and none for what no item has: with one for each table a commit took a tenth longer. Plans are generic:
-- planning anew for the number of items cost as much as the inserts. They never scan a table: made while a table is young
-- and empty, they would go on doing so when it is not. Tables are named with their schema, because a search_path of its own
-- would be set and reset in every call.
CREATE FUNCTION app.commit_uploads(
    items jsonb, answer_hours integer,
    OUT transaction_id text, OUT fits boolean, OUT verdicts smallint[], OUT create_time timestamptz,
    OUT deletion_times timestamptz[], OUT figures jsonb, OUT answered jsonb, OUT facts jsonb,
    OUT event_positions jsonb
) LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off
    AS $$
DECLARE
    tenant constant uuid := app.tenant_id();
    moment constant timestamptz := app.now();
    finished app.finished_upload[];
    fresh app.finished_upload[];
    requests uuid[];
    distinct_requests integer;
    locked uuid[];
    reserved jsonb := '{}';
    has_leases boolean;
    has_tags boolean;
    has_attachments boolean;
    has_readers boolean;
    has_versions boolean;
    has_imports boolean;
    kind_moves jsonb;
BEGIN
    transaction_id := pg_current_xact_id()::text;
    create_time := moment;
    -- Everything is told by place, so all of these keep the order of the items. Nothing DISTINCT or ORDER BY may stand among
    -- them: from PostgreSQL 16 on the planner may sort the rows for it, and for all.
    SELECT coalesce(array_agg(n), '{}'), array_agg(n.request_id) FILTER (WHERE n.request_id IS NOT NULL),
        array_agg(moment + make_interval(days => n.retention_days)), bool_or(n.lease_id IS NOT NULL),
        bool_or(cardinality(n.tags) > 0), bool_or(jsonb_array_length(n.attachments) > 0), bool_or(cardinality(n.readers) > 0),
        bool_or(n.is_version), bool_or(n.import_source IS NOT NULL)
    INTO finished, requests, deletion_times, has_leases, has_tags, has_attachments, has_readers, has_versions,
        has_imports
    FROM jsonb_populate_recordset(NULL::app.finished_upload, items) AS n;
    verdicts := array_fill(1::smallint, ARRAY[cardinality(finished)]);
    fresh := finished;

    IF requests IS NOT NULL THEN
        locked := array(
            SELECT id FROM unnest(requests) AS id
            WHERE pg_try_advisory_xact_lock(hashtextextended(tenant::text || id::text, 0)));
        -- A statement of its own, so that it sees what the lock's last holder committed. One look an id: the planner takes
        -- a young table for an empty one and would walk all of the tenant's answers.
        answered := (
            SELECT jsonb_object_agg(id, jsonb_build_object(
                'method', k.method, 'payload_sha256', encode(k.payload_sha256, 'hex'), 'answer', k.answer))
            FROM unnest(requests) AS id
            CROSS JOIN LATERAL (
                SELECT stored.method, stored.payload_sha256, stored.answer FROM public.idempotency_keys AS stored
                WHERE stored.tenant_id = tenant AND stored.request_id = id
                  AND stored.create_time > moment - make_interval(hours => answer_hours)
                LIMIT 1) AS k);
        distinct_requests := cardinality(requests);
        IF distinct_requests > 1 THEN
            distinct_requests := (SELECT count(DISTINCT id) FROM unnest(requests) AS id);
        END IF;
        IF answered IS NOT NULL OR cardinality(locked) < cardinality(requests)
            OR distinct_requests < cardinality(requests) THEN
            verdicts := array(
                SELECT CASE
                    WHEN request IS NULL THEN 1
                    WHEN answered ? request::text THEN 2
                    WHEN request = ANY (locked) AND row_number() OVER (PARTITION BY request ORDER BY place) = 1 THEN 1
                    ELSE 3
                END::smallint
                FROM (SELECT place, finished[place].request_id AS request
                      FROM generate_subscripts(finished, 1) AS place) AS n
                ORDER BY place);
        END IF;
    END IF;

    IF has_versions THEN
        verdicts := app.judge_versions(finished, verdicts);
    END IF;
    IF has_leases THEN
        WITH ended AS (
            UPDATE public.uploads AS u SET state = 2
            FROM generate_subscripts(finished, 1) AS place
            WHERE verdicts[place] = 1 AND u.tenant_id = tenant AND u.id = finished[place].lease_id
              AND u.lease_epoch = finished[place].lease_epoch AND u.state = 1
              AND u.lease_expire_time > moment
            RETURNING u.id, u.reserved_bytes)
        SELECT coalesce(jsonb_object_agg(id, reserved_bytes), '{}') INTO reserved FROM ended;
        verdicts := array(
            SELECT CASE
                WHEN verdicts[place] = 1 AND NOT reserved ? finished[place].lease_id::text THEN 4
                ELSE verdicts[place]
            END::smallint
            FROM generate_subscripts(finished, 1) AS place ORDER BY place);
    END IF;
    IF NOT 1 = ALL (verdicts) THEN
        fresh := array(
            SELECT finished[place] FROM generate_subscripts(finished, 1) AS place
            WHERE verdicts[place] = 1 ORDER BY place);
    END IF;

    IF has_versions THEN
        fresh := app.number_versions(fresh);
    END IF;

    -- Rows that nobody else can know, so that their order among themselves locks nobody.
    WITH n AS MATERIALIZED (
        SELECT u.*, nextval('public.event_numbers') AS event_number FROM unnest(fresh) AS u
    ), blobs AS (
        INSERT INTO public.blobs (tenant_id, id, provider, storage_key, size_bytes, sha256, crc64nvme, create_time)
        SELECT tenant, n.blob_id, n.provider, n.storage_key, n.size_bytes, n.sha256, n.crc64nvme, moment FROM n
    ), files AS (
        INSERT INTO public.files (tenant_id, id, owner_id, created_by, updated_by, name, original_name, category, title,
            description, metadata, visibility, version, content_state, scan_status, mime_type, declared_mime_type,
            media_kind, size_bytes, sha256, create_time, update_time, expire_time, retain_until_time, deletion_time)
        SELECT tenant, n.file_id, n.owner_id, n.created_by, n.created_by, n.name, n.name, n.category, n.title,
            n.description, n.metadata, n.visibility, n.version, n.content_state, n.scan_status, n.mime_type,
            n.declared_mime_type, n.media_kind, n.size_bytes, n.sha256, coalesce(n.file_create_time, moment), moment, n.expire_time,
            n.retain_until_time,
            moment + make_interval(days => n.retention_days)
        FROM n WHERE NOT n.is_version
    ), versions AS (
        INSERT INTO public.versions (tenant_id, file_id, version, blob_id, content_state, scan_status, mime_type,
            declared_mime_type, media_kind, size_bytes, sha256, created_by, create_time, change_description)
        SELECT tenant, n.file_id, n.version, n.blob_id, n.content_state, n.scan_status, n.mime_type,
            n.declared_mime_type, n.media_kind, n.size_bytes, n.sha256, n.created_by, moment, n.change_description
        FROM n
    ), audit_entries AS (
        INSERT INTO public.audit_entries (tenant_id, create_time, actor_kind, actor_id, action, is_allowed, file_id, version,
            request_id, address, details)
        SELECT tenant, moment, n.actor_kind, n.actor_id, n.audit_action, true, n.file_id, n.version, n.audit_request_id,
            n.audit_address, n.audit_details
        FROM n
    ), events AS (
        INSERT INTO public.events (tenant_id, create_time, n, kind, file_id, version, actor_id, owner_id, audience, readers)
        SELECT tenant, moment, n.event_number, n.event_kind, n.file_id, n.version, n.created_by, n.owner_id,
            least(n.visibility, 3), n.readers
        FROM n
    )
    SELECT jsonb_object_agg(
        n.blob_id, lpad(to_hex(transaction_id::bigint), 16, '0') || lpad(to_hex(n.event_number), 16, '0'))
    INTO event_positions FROM n;

    IF has_tags THEN
        INSERT INTO public.file_tags (tenant_id, file_id, tag)
        SELECT tenant, n.file_id, tag FROM unnest(fresh) AS n, unnest(n.tags) AS tag;
    END IF;
    IF has_attachments THEN
        INSERT INTO public.attachments (tenant_id, file_id, entity_type, entity_id, field, created_by, create_time)
        SELECT tenant, n.file_id, a.entity_type, a.entity_id, a.field, n.created_by, moment
        FROM unnest(fresh) AS n,
            jsonb_to_recordset(n.attachments) AS a (entity_type text, entity_id text, field text);
    END IF;
    IF has_readers THEN
        INSERT INTO public.file_readers (tenant_id, principal, file_id, create_time, name, size_bytes)
        SELECT tenant, principal, n.file_id, coalesce(n.file_create_time, moment), n.name, n.size_bytes
        FROM unnest(fresh) AS n, unnest(n.readers) AS principal WHERE NOT n.is_version;
    END IF;

    -- The only rows here that another commit may write too; in order, so that two batches never wait for each other.
    IF has_imports THEN
        INSERT INTO public.imports (tenant_id, source_sha256, source, legacy_id, file_id, create_time)
        SELECT tenant, n.import_sha256, n.import_source, n.import_legacy_id, n.file_id, moment
        FROM unnest(fresh) AS n WHERE n.import_source IS NOT NULL ORDER BY n.import_sha256;
    END IF;

    IF has_versions THEN
        SELECT moved.facts, moved.kind_moves INTO facts, kind_moves FROM app.move_current(fresh) AS moved;
        PERFORM app.count_versions(fresh, kind_moves);
    ELSE
        INSERT INTO public.usage_counters AS counter (tenant_id, category, media_kind, file_count, total_bytes)
        SELECT tenant, n.category, n.media_kind, count(*), sum(n.size_bytes) FROM unnest(fresh) AS n
        GROUP BY n.category, n.media_kind ORDER BY n.category COLLATE "C", n.media_kind
        ON CONFLICT (tenant_id, category, media_kind) DO UPDATE
        SET file_count = counter.file_count + excluded.file_count,
            total_bytes = counter.total_bytes + excluded.total_bytes;
    END IF;

    WITH n AS MATERIALIZED (
        SELECT * FROM unnest(fresh)
    ), charged AS (
        UPDATE public.quotas AS q SET
            used_bytes = q.used_bytes + delta.used, reserved_bytes = q.reserved_bytes - delta.settled,
            file_count = q.file_count + delta.files, reserved_file_count = q.reserved_file_count - delta.settled_files
        FROM (
            SELECT coalesce(sum(n.size_bytes), 0)::bigint AS used, count(*) FILTER (WHERE NOT n.is_version) AS files,
                coalesce(sum((reserved ->> n.lease_id::text)::bigint), 0)::bigint AS settled,
                count(n.lease_id) FILTER (WHERE NOT n.is_version) AS settled_files
            FROM n) AS delta
        WHERE q.tenant_id = tenant
          AND q.used_bytes + q.reserved_bytes + delta.used - delta.settled <= q.limit_bytes
          AND (q.file_count_max = 0 OR
               q.file_count + q.reserved_file_count + delta.files - delta.settled_files <= q.file_count_max)
        RETURNING jsonb_build_object('limit_bytes', q.limit_bytes, 'used_bytes', q.used_bytes,
            'warning_percent', q.warning_percent, 'critical_percent', q.critical_percent) AS quota
    ), answers AS (
        INSERT INTO public.idempotency_keys (tenant_id, request_id, create_time, method, payload_sha256, answer)
        SELECT tenant, n.request_id, moment, n.method, n.payload_sha256, jsonb_build_object(
            'answer', n.answer, 'quota', charged.quota, 'create_time', moment,
            'deletion_time', moment + make_interval(days => n.retention_days), 'facts', facts -> n.blob_id::text,
            'event_position', event_positions -> n.blob_id::text)
        FROM n, charged WHERE n.request_id IS NOT NULL
    )
    SELECT quota INTO figures FROM charged;
    fits := FOUND;
END
$$;

-- What an upload may store, and what was answered to its request id before, if anything. It sets its transaction's
-- context itself (the tenant: nothing it reads asks for more), so that two reads by primary key cost one round trip; they
-- wait for no lock.
CREATE FUNCTION app.upload_terms(tenant uuid, request uuid, answer_hours integer, now_override text)
    RETURNS TABLE (quota public.quotas, method smallint, payload_sha256 bytea, answer jsonb)
    LANGUAGE plpgsql
    AS $$
BEGIN
    PERFORM set_config('app.tenant_id', tenant::text, true);
    IF now_override IS NOT NULL THEN
        PERFORM set_config('app.now', now_override, true);
    END IF;
    RETURN QUERY
        SELECT q, k.method, k.payload_sha256, k.answer
        FROM public.quotas AS q
        LEFT JOIN public.idempotency_keys AS k ON k.tenant_id = q.tenant_id AND k.request_id = request
            AND k.create_time > app.now() - make_interval(hours => answer_hours)
        WHERE q.tenant_id = tenant
        LIMIT 1;
END
$$;

REVOKE ALL ON FUNCTION app.commit_uploads, app.upload_terms FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app.commit_uploads, app.upload_terms TO strongroom_app;
