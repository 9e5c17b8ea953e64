-- One row of each table of the baseline. The test in migrations.rs inserts them before it applies the later
-- migrations. Never change a row: it represents data that the first version wrote.
INSERT INTO tenants (id, kind, issuer, external_id, policy, create_time)
VALUES ('00000000-0000-4000-8000-000000000001', 1, 'https://issuer.test', 'acme', '{"categories": {"report": {}}}', '2026-12-01');
INSERT INTO quotas (tenant_id, limit_bytes, used_bytes, file_count_max, file_count, warning_percent, critical_percent,
    image_bytes_max, video_bytes_max, audio_bytes_max, document_bytes_max, other_bytes_max, ceiling_bytes, ceiling_file_count,
    update_time)
VALUES ('00000000-0000-4000-8000-000000000001', 1000, 5, 0, 1, 80, 95, 10, 20, 30, 40, 50, 2000, 0, '2026-12-01');
INSERT INTO usage_counters (tenant_id, category, media_kind, file_count, total_bytes)
VALUES ('00000000-0000-4000-8000-000000000001', 'report', 5, 1, 5);
INSERT INTO blobs (tenant_id, id, provider, storage_key, size_bytes, sha256, crc64nvme, create_time)
VALUES ('00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-000000000002', 'primary', 'acme/blob', 5,
    decode(repeat('11', 32), 'hex'), decode(repeat('22', 8), 'hex'), '2026-12-01');
INSERT INTO stray_objects (tenant_id, provider, storage_key, may_be_unfinished, delete_after)
VALUES ('00000000-0000-4000-8000-000000000001', 'primary', 'acme/copy', true, '2026-12-08');
INSERT INTO files (tenant_id, id, owner_id, created_by, updated_by, name, original_name, category, title, description,
    metadata, visibility, version, content_state, scan_status, mime_type, declared_mime_type, media_kind, size_bytes, sha256,
    create_time, update_time, delete_time, purge_time, expire_time, retain_until_time, hold_time, hold_by, hold_reason)
VALUES ('00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-000000000003', 'alice', 'alice', 'bob', 'a.txt',
    'original.txt', 'report', 'Title', 'Description', '{"page": 7}', 4, 1, 2, 3, 'text/plain', 'text/plain', 5, 5,
    decode(repeat('11', 32), 'hex'), '2026-12-01', '2026-12-02', '2026-12-03', '2027-01-03', '2027-06-01', '2027-12-01',
    '2026-12-04', 'admin', 'lawsuit');
INSERT INTO file_readers (tenant_id, principal, file_id, create_time, name, size_bytes, is_deleted)
VALUES ('00000000-0000-4000-8000-000000000001', 'user:bob', '00000000-0000-4000-8000-000000000003', '2026-12-01', 'a.txt', 5, true);
INSERT INTO versions (tenant_id, file_id, version, blob_id, content_state, scan_status, mime_type, declared_mime_type,
    media_kind, size_bytes, sha256, created_by, create_time, change_description)
VALUES ('00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-000000000003', 1,
    '00000000-0000-4000-8000-000000000002', 2, 3, 'text/plain', 'text/plain', 5, 5, decode(repeat('11', 32), 'hex'), 'alice',
    '2026-12-01', 'first');
INSERT INTO file_tags (tenant_id, file_id, tag)
VALUES ('00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-000000000003', 'draft');
INSERT INTO attachments (tenant_id, file_id, entity_type, entity_id, field, created_by, create_time)
VALUES ('00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-000000000003', 'course', 'C-1', '', 'alice', '2026-12-01');
INSERT INTO download_counts (tenant_id, file_id, download_count, last_access_time)
VALUES ('00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-000000000003', 3, '2026-12-02');
INSERT INTO tombstones (tenant_id, file_id, name, size_bytes, sha256, purged_by, purge_time, expire_time)
VALUES ('00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-000000000004', 'purged.txt', 7,
    decode(repeat('33', 32), 'hex'), 'alice', '2026-12-02', '2027-03-02');
INSERT INTO uploads (tenant_id, id, state, lease_expire_time, reserved_bytes, blob_id, provider, storage_key, multipart_id,
    created_by, create_time, spec, part_size_bytes, sniffed_mime_type)
VALUES ('00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-000000000005', 1, '2026-12-02', 100,
    '00000000-0000-4000-8000-000000000006', 'primary', 'acme/upload', 'multipart', 'alice', '2026-12-01', '{"name": "b.txt"}',
    8388608, 'text/plain');
INSERT INTO upload_parts (tenant_id, upload_id, number, size_bytes, etag, crc64nvme, sha256_state)
VALUES ('00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-000000000005', 1, 100, 'etag',
    decode(repeat('44', 8), 'hex'), '\x55');
INSERT INTO idempotency_keys (tenant_id, request_id, create_time, method, payload_sha256, response)
VALUES ('00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-000000000007', '2026-12-01', 1,
    decode(repeat('66', 32), 'hex'), '{"response": {}}');
INSERT INTO audit_entries (tenant_id, create_time, actor_kind, actor_id, action, is_allowed, file_id, version, call_id, address,
    details)
VALUES ('00000000-0000-4000-8000-000000000001', '2026-12-01', 1, 'alice', 2, true, '00000000-0000-4000-8000-000000000003', 1,
    'call', '192.0.2.1', '{}');
INSERT INTO events (tenant_id, create_time, kind, file_id, version, actor_id, owner_id, audience, readers)
VALUES ('00000000-0000-4000-8000-000000000001', '2026-12-01', 1, '00000000-0000-4000-8000-000000000003', 1, 'alice', 'alice', 3,
    '{user:bob}');
INSERT INTO webhooks (tenant_id, id, url, description, kinds, sealed_secret, state, position_xid, position_n, position_time,
    incarnation, next_attempt_time, created_by, create_time, update_time)
VALUES ('00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-000000000008', 'https://hook.test', 'Hook', '{1, 2}',
    'sealed', 1, '10', 1, '2026-12-01', 'incarnation', '2026-12-01', 'alice', '2026-12-01', '2026-12-01');
INSERT INTO webhook_deliveries (tenant_id, webhook_id, position_xid, position_n, kind, file_id, version, actor_id, event_time,
    state, attempts, last_error, create_time, update_time)
VALUES ('00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-000000000008', '10', 1, 1,
    '00000000-0000-4000-8000-000000000003', 1, 'alice', '2026-12-01', 1, 8, 'status 500', '2026-12-01', '2026-12-01');
INSERT INTO jobs (tenant_id, id, payload, state, dedup_key, run_time, enqueue_time)
VALUES ('00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-000000000009', '{"kind": "verify"}', 1, 'verify 1',
    '2026-12-01', '2026-12-01');
INSERT INTO finished_jobs (tenant_id, id, create_time, kind, payload, outcome, attempts, last_error, enqueue_time)
VALUES ('00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-00000000000a', '2026-12-01', 'verify',
    '{"kind": "verify"}', 1, 1, '', '2026-12-01');
INSERT INTO schedules (name, next_time, last_time) VALUES ('purge_trash', '2026-12-02', '2026-12-01');
INSERT INTO sweep_candidates (tenant_id, provider, storage_key, multipart_id, size_bytes, first_seen_time)
VALUES ('00000000-0000-4000-8000-000000000001', 'primary', 'acme/unknown', '', 9, '2026-12-01');
INSERT INTO sweeps (provider, sweep_time, full_walk_time) VALUES ('primary', '2026-12-01', '2026-12-01');
INSERT INTO imports (tenant_id, source_sha256, source, legacy_id, file_id, create_time)
VALUES ('00000000-0000-4000-8000-000000000001', decode(repeat('77', 32), 'hex'), 'legacy:key', '42',
    '00000000-0000-4000-8000-000000000003', '2026-12-01');
