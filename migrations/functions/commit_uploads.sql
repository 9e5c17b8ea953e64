-- Commits finished uploads of the transaction's tenant. Every commit writes in this order, which is also the
-- lock order: request ids, files that get a new version, uploads, blobs, files, versions, block checksums, tags,
-- attachments, readers, audit entries, events, imports, usage counters, and the quota last. Only the quotas of users and the
-- response follow: those of users are changed under the lock of the tenant's quota, and the response contains it.
--
-- `outcomes` has one name per item, in order: `committed` at `create_time`; `replayed`, because the request id
-- already has a response, which is in `replayed`; `in_progress`, because another request with this request id
-- is in progress; `fenced`, because the lease was lost or has expired; or the outcome of a rejected new version
-- (see `app.check_new_versions`). If `fits` is false, the items exceed a quota and the caller must roll back: that of the
-- tenant, or that of the user `exceeded_user` in `quota_values`.
-- `file_records` contains the record of the file of each new version, and `event_positions` the position of
-- the event of each item, in the format of src/domain/event_position.rs. Both are keyed by blob id.
--
-- The function uses few statements and skips those that no item needs: with one statement per table, a commit
-- took 10% longer. Plans are generic, because planning for each number of items cost as much as the inserts.
-- Sequential scans are disabled: a plan that is made while a table is empty would otherwise keep scanning it
-- when it has grown. Table names are qualified, because a `SET search_path` would be applied and reset in
-- every call.
--
-- Each upload calls this function and `app.admission_data`. Each takes one round trip: as separate statements, the
-- commit took fourteen, which dominated the time of small files. Both run with the permissions of the caller, so
-- row-level security applies to all their statements.
CREATE OR REPLACE FUNCTION app.commit_uploads(
    items jsonb, idempotency_hours integer,
    OUT transaction_id text, OUT fits boolean, OUT outcomes text[], OUT create_time timestamptz,
    OUT deletion_times timestamptz[], OUT quota_values jsonb, OUT replayed jsonb, OUT file_records jsonb,
    OUT event_positions jsonb
) LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off
    AS $$
DECLARE
    tenant constant uuid := app.tenant_id();
    commit_time constant timestamptz := app.now();
    finished app.finished_upload[];
    accepted app.finished_upload[];
    requests uuid[];
    distinct_request_count integer;
    locked uuid[];
    reserved jsonb := '{}';
    reserving_users jsonb := '{}';
    user_quota_count integer;
    exceeded_user text;
    has_leases boolean;
    has_tags boolean;
    has_attachments boolean;
    has_readers boolean;
    has_versions boolean;
    has_imports boolean;
    has_block_checksums boolean;
    kind_changes jsonb;
    change_xid xid8;
    revisions jsonb;
BEGIN
    create_time := commit_time;
    -- Results are returned by index, so all aggregates must keep the order of the items. None of them may use
    -- DISTINCT or ORDER BY: since PostgreSQL 16 the planner may sort the rows for one aggregate, which
    -- reorders the input of all.
    SELECT coalesce(array_agg(n), '{}'), array_agg(n.request_id) FILTER (WHERE n.request_id IS NOT NULL),
        array_agg(commit_time + make_interval(days => n.retention_days)), bool_or(n.lease_id IS NOT NULL),
        bool_or(cardinality(n.tags) > 0), bool_or(jsonb_array_length(n.attachments) > 0), bool_or(cardinality(n.readers) > 0),
        bool_or(n.is_version), bool_or(n.import_source IS NOT NULL), bool_or(n.block_checksums IS NOT NULL)
    INTO finished, requests, deletion_times, has_leases, has_tags, has_attachments, has_readers, has_versions,
        has_imports, has_block_checksums
    FROM jsonb_populate_recordset(NULL::app.finished_upload, items) AS n;
    outcomes := array_fill('committed'::text, ARRAY[cardinality(finished)]);
    accepted := finished;

    IF requests IS NOT NULL THEN
        locked := array(
            SELECT id FROM unnest(requests) AS id
            WHERE pg_try_advisory_xact_lock(hashtextextended(tenant::text || id::text, 0)));
        -- A separate statement, so that it sees the rows of the previous lock holder. The lateral join forces
        -- one index lookup per id: the planner assumes that a new table is empty and would scan all responses
        -- of the tenant.
        replayed := (
            SELECT jsonb_object_agg(id, jsonb_build_object(
                'method', k.method, 'payload_sha256', encode(k.payload_sha256, 'hex'), 'response', k.response))
            FROM unnest(requests) AS id
            CROSS JOIN LATERAL (
                SELECT stored.method, stored.payload_sha256, stored.response FROM public.idempotency_keys AS stored
                WHERE stored.tenant_id = tenant AND stored.request_id = id
                  AND stored.create_time > commit_time - make_interval(hours => idempotency_hours)
                LIMIT 1) AS k);
        distinct_request_count := cardinality(requests);
        IF distinct_request_count > 1 THEN
            distinct_request_count := (SELECT count(DISTINCT id) FROM unnest(requests) AS id);
        END IF;
        IF replayed IS NOT NULL OR cardinality(locked) < cardinality(requests)
            OR distinct_request_count < cardinality(requests) THEN
            outcomes := array(
                SELECT CASE
                    WHEN request IS NULL THEN 'committed'
                    WHEN replayed ? request::text THEN 'replayed'
                    WHEN request = ANY (locked) AND row_number() OVER (PARTITION BY request ORDER BY item) = 1
                        THEN 'committed'
                    ELSE 'in_progress'
                END
                FROM (SELECT item, finished[item].request_id AS request
                      FROM generate_subscripts(finished, 1) AS item) AS n
                ORDER BY item);
        END IF;
    END IF;

    IF has_versions THEN
        outcomes := app.check_new_versions(finished, outcomes);
    END IF;
    -- Only now, because the order of a file's events is the order in which it was locked.
    transaction_id := pg_current_xact_id()::text;
    change_xid := app.change_xid();
    IF has_leases THEN
        WITH committed AS (
            -- The row is kept as long as the response, so that a repeated completion finds it.
            UPDATE public.uploads AS u SET state = {upload_state.committed},
                lease_expire_time = greatest(u.lease_expire_time, commit_time + make_interval(hours => idempotency_hours))
            FROM generate_subscripts(finished, 1) AS item
            WHERE outcomes[item] = 'committed' AND u.tenant_id = tenant AND u.id = finished[item].lease_id
              AND u.lease_epoch = finished[item].lease_epoch AND u.state = {upload_state.open}
              AND u.lease_expire_time > commit_time
            RETURNING u.id, u.reserved_bytes, u.owner_id)
        SELECT coalesce(jsonb_object_agg(id, reserved_bytes), '{}'), coalesce(jsonb_object_agg(id, owner_id), '{}')
        INTO reserved, reserving_users FROM committed;
        outcomes := array(
            SELECT CASE
                WHEN outcomes[item] = 'committed' AND NOT reserved ? finished[item].lease_id::text THEN 'fenced'
                ELSE outcomes[item]
            END
            FROM generate_subscripts(finished, 1) AS item ORDER BY item);
    END IF;
    IF NOT 'committed' = ALL (outcomes) THEN
        accepted := array(
            SELECT finished[item] FROM generate_subscripts(finished, 1) AS item
            WHERE outcomes[item] = 'committed' ORDER BY item);
    END IF;

    IF has_versions THEN
        accepted := app.assign_version_numbers(accepted);
        -- As in `app.set_current_versions`: each version increments the revision.
        revisions := (
            SELECT jsonb_object_agg(n.blob_id, f.revision + n.version - f.last_version)
            FROM unnest(accepted) AS n JOIN public.files AS f ON f.tenant_id = tenant AND f.id = n.file_id
            WHERE n.is_version);
    END IF;

    -- These rows are new and unknown to other transactions, so the order of their inserts does not matter for
    -- locks.
    WITH n AS MATERIALIZED (
        SELECT u.*, nextval('public.event_numbers') AS event_number FROM unnest(accepted) AS u
    ), blobs AS (
        INSERT INTO public.blobs (tenant_id, id, provider, storage_key, size_bytes, sha256, crc64nvme, create_time)
        SELECT tenant, n.blob_id, n.provider, n.storage_key, n.size_bytes, n.sha256, n.crc64nvme, commit_time FROM n
    ), files AS (
        INSERT INTO public.files (tenant_id, id, owner_id, created_by, updated_by, name, original_name, category, title,
            description, metadata, visibility, version, content_state, scan_status, mime_type, declared_mime_type,
            media_kind, size_bytes, sha256, create_time, update_time, expire_time, retain_until_time, deletion_time)
        SELECT tenant, n.file_id, n.owner_id, n.created_by, n.created_by, n.name, n.name, n.category, n.title,
            n.description, n.metadata, n.visibility, n.version, n.content_state, n.scan_status, n.mime_type,
            n.declared_mime_type, n.media_kind, n.size_bytes, n.sha256, coalesce(n.file_create_time, commit_time), commit_time, n.expire_time,
            n.retain_until_time,
            commit_time + make_interval(days => n.retention_days)
        FROM n WHERE NOT n.is_version
    ), versions AS (
        INSERT INTO public.versions (tenant_id, file_id, version, blob_id, content_state, scan_status, mime_type,
            declared_mime_type, media_kind, size_bytes, sha256, created_by, create_time, change_description)
        SELECT tenant, n.file_id, n.version, n.blob_id, n.content_state, n.scan_status, n.mime_type,
            n.declared_mime_type, n.media_kind, n.size_bytes, n.sha256, n.created_by, commit_time, n.change_description
        FROM n
    ), audit_entries AS (
        INSERT INTO public.audit_entries (tenant_id, create_time, xid, actor_kind, actor_id, action, is_allowed, file_id,
            version, call_id, address, details)
        SELECT tenant, commit_time, change_xid, n.actor_kind, n.actor_id, n.audit_action, true, n.file_id, n.version, n.audit_call_id,
            n.audit_address, n.audit_details
        FROM n
    ), events AS (
        INSERT INTO public.events (tenant_id, create_time, xid, n, kind, file_id, version, revision, actor_id, owner_id,
            audience, readers)
        SELECT tenant, commit_time, change_xid, n.event_number, n.event_kind, n.file_id, n.version,
            coalesce((revisions ->> n.blob_id::text)::bigint, 1), n.created_by, n.owner_id,
            least(n.visibility, {visibility.organization}), n.readers
        FROM n
    )
    SELECT jsonb_object_agg(
        n.blob_id, lpad(to_hex(app.position_epoch()::bigint << 48 | change_xid::text::bigint), 16, '0')
            || lpad(to_hex(n.event_number), 16, '0'))
    INTO event_positions FROM n;

    -- Blobs of one block have none.
    IF has_block_checksums THEN
        INSERT INTO public.blob_checksums (tenant_id, blob_id, block_checksums)
        SELECT tenant, n.blob_id, n.block_checksums FROM unnest(accepted) AS n WHERE n.block_checksums IS NOT NULL;
    END IF;
    IF has_tags THEN
        INSERT INTO public.file_tags (tenant_id, file_id, tag)
        -- Uploads that were created before tags were normalized may contain one tag in two forms.
        SELECT DISTINCT tenant, n.file_id, normalize(tag, NFC) FROM unnest(accepted) AS n, unnest(n.tags) AS tag;
    END IF;
    IF has_attachments THEN
        INSERT INTO public.attachments (tenant_id, file_id, entity_type, entity_id, field, created_by, create_time)
        SELECT tenant, n.file_id, a.entity_type, a.entity_id, a.field, n.created_by, commit_time
        FROM unnest(accepted) AS n,
            jsonb_to_recordset(n.attachments) AS a (entity_type text, entity_id text, field text);
    END IF;
    IF has_readers THEN
        INSERT INTO public.file_readers (tenant_id, principal, file_id, create_time, name, size_bytes)
        SELECT tenant, principal, n.file_id, coalesce(n.file_create_time, commit_time), n.name, n.size_bytes
        FROM unnest(accepted) AS n, unnest(n.readers) AS principal WHERE NOT n.is_version;
    END IF;

    -- Concurrent commits can insert the same import, so insert in order to avoid deadlocks.
    IF has_imports THEN
        INSERT INTO public.imports (tenant_id, source_sha256, source, legacy_id, file_id, create_time)
        SELECT tenant, n.import_sha256, n.import_source, n.import_legacy_id, n.file_id, commit_time
        FROM unnest(accepted) AS n WHERE n.import_source IS NOT NULL ORDER BY n.import_sha256;
    END IF;

    IF has_versions THEN
        SELECT moved.file_records, moved.kind_changes INTO file_records, kind_changes FROM app.set_current_versions(accepted) AS moved;
        PERFORM app.add_version_usage(accepted, kind_changes);
    ELSE
        INSERT INTO public.usage_counters AS counter (tenant_id, category, media_kind, file_count, total_bytes)
        SELECT tenant, n.category, n.media_kind, count(*), sum(n.size_bytes) FROM unnest(accepted) AS n
        GROUP BY n.category, n.media_kind ORDER BY n.category COLLATE "C", n.media_kind
        ON CONFLICT (tenant_id, category, media_kind) DO UPDATE
        SET file_count = counter.file_count + excluded.file_count,
            total_bytes = counter.total_bytes + excluded.total_bytes;
    END IF;

    WITH n AS MATERIALIZED (
        SELECT * FROM unnest(accepted)
    ), charged AS (
        UPDATE public.quotas AS q SET
            used_bytes = q.used_bytes + delta.used, reserved_bytes = q.reserved_bytes - delta.released,
            file_count = q.file_count + delta.files, reserved_file_count = q.reserved_file_count - delta.released_files
        FROM (
            SELECT coalesce(sum(n.size_bytes), 0)::bigint AS used, count(*) FILTER (WHERE NOT n.is_version) AS files,
                coalesce(sum((reserved ->> n.lease_id::text)::bigint), 0)::bigint AS released,
                count(n.lease_id) FILTER (WHERE NOT n.is_version) AS released_files
            FROM n) AS delta
        WHERE q.tenant_id = tenant
          AND q.used_bytes + q.reserved_bytes + delta.used - delta.released <= q.limit_bytes
          -- A reservation was checked when it was made.
          AND (delta.used <= delta.released
               OR q.used_bytes + q.reserved_bytes + q.pending_deletion_bytes + delta.used - delta.released
                  <= q.limit_bytes * (q.pending_deletion_multiple + 1))
          AND (q.file_count_max = 0 OR
               q.file_count + q.reserved_file_count + delta.files - delta.released_files <= q.file_count_max)
        RETURNING jsonb_build_object('limit_bytes', q.limit_bytes, 'used_bytes', q.used_bytes,
            'warning_percent', q.warning_percent, 'critical_percent', q.critical_percent) AS quota, q.user_quota_count
    ), responses AS (
        INSERT INTO public.idempotency_keys (tenant_id, request_id, create_time, method, payload_sha256, response)
        SELECT tenant, n.request_id, commit_time, n.method, n.payload_sha256, jsonb_build_object(
            'response', n.response, 'quota', charged.quota, 'create_time', commit_time,
            'deletion_time', commit_time + make_interval(days => n.retention_days), 'file_record', file_records -> n.blob_id::text,
            'event_position', event_positions -> n.blob_id::text)
        FROM n, charged WHERE n.request_id IS NOT NULL
    )
    SELECT charged.quota, charged.user_quota_count INTO quota_values, user_quota_count FROM charged;
    fits := FOUND;

    IF user_quota_count > 0 THEN
        SELECT app.charge_users(array_agg(c.user_id), array_agg(c.used), array_agg(c.reserved), array_agg(c.files),
            array_agg(c.reserved_files))
        INTO exceeded_user
        FROM (
            SELECT n.owner_id AS user_id, n.size_bytes AS used, 0::bigint AS reserved, (NOT n.is_version)::integer::bigint AS files,
                0::bigint AS reserved_files
            FROM unnest(accepted) AS n
            UNION ALL
            SELECT reserving_users ->> n.lease_id::text, 0, -(reserved ->> n.lease_id::text)::bigint, 0,
                -(NOT n.is_version)::integer::bigint
            FROM unnest(accepted) AS n WHERE n.lease_id IS NOT NULL
        ) AS c WHERE c.user_id IS NOT NULL;
        IF exceeded_user IS NOT NULL THEN
            fits := false;
            quota_values := jsonb_build_object('exceeded_user', exceeded_user);
        END IF;
    END IF;
END
$$;
REVOKE ALL ON FUNCTION app.commit_uploads FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app.commit_uploads TO strongroom_app;
