//! The tables of the database, for the query builder. `scripts/schema` generates this file from the migrated
//! database, and a test compares them. Columns have their order in the table.

diesel::table! {
    access_log (tenant_id, create_time, n) {
        tenant_id -> Uuid,
        create_time -> Timestamptz,
        n -> BigInt,
        file_id -> Uuid,
        version -> Nullable<Integer>,
        share_id -> Nullable<Uuid>,
        actor_kind -> Nullable<SmallInt>,
        actor_id -> Text,
        call_id -> Text,
        address -> Text,
        user_agent -> Text,
        action -> SmallInt,
        is_granted -> Bool,
        denial_reason -> Text,
        purpose -> Text,
    }
}

diesel::table! {
    attachments (tenant_id, file_id, entity_type, entity_id, field) {
        tenant_id -> Uuid,
        file_id -> Uuid,
        entity_type -> Text,
        entity_id -> Text,
        field -> Text,
        created_by -> Text,
        create_time -> Timestamptz,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    use crate::db::sql::xid::Xid8;

    audit_entries (tenant_id, create_time, n) {
        tenant_id -> Uuid,
        create_time -> Timestamptz,
        n -> BigInt,
        xid -> Xid8,
        actor_kind -> SmallInt,
        actor_id -> Text,
        action -> SmallInt,
        is_allowed -> Bool,
        file_id -> Nullable<Uuid>,
        version -> Nullable<Integer>,
        call_id -> Text,
        address -> Text,
        details -> Jsonb,
        actor_issuer -> Nullable<Text>,
        epoch -> Integer,
    }
}

diesel::table! {
    blob_checksums (tenant_id, blob_id) {
        tenant_id -> Uuid,
        blob_id -> Uuid,
        block_checksums -> Binary,
    }
}

diesel::table! {
    blob_claims (tenant_id, blob_id, work) {
        tenant_id -> Uuid,
        blob_id -> Uuid,
        work -> Text,
        expire_time -> Timestamptz,
        failure_count -> Integer,
        claim_id -> Nullable<Uuid>,
    }
}

diesel::table! {
    blobs (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        provider -> Text,
        storage_key -> Text,
        size_bytes -> BigInt,
        sha256 -> Nullable<Binary>,
        crc64nvme -> Nullable<Binary>,
        storage_class -> SmallInt,
        create_time -> Timestamptz,
        delete_after -> Nullable<Timestamptz>,
        last_verified_time -> Nullable<Timestamptz>,
        replica_provider -> Nullable<Text>,
        replica_key -> Nullable<Text>,
        replica_verified_time -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    credit_balances (tenant_id, user_id) {
        tenant_id -> Uuid,
        user_id -> Text,
        balance -> BigInt,
        entry_count -> BigInt,
        update_time -> Timestamptz,
    }
}

diesel::table! {
    credit_entries (tenant_id, user_id, number) {
        tenant_id -> Uuid,
        user_id -> Text,
        number -> BigInt,
        amount -> BigInt,
        balance_after -> BigInt,
        reason -> Text,
        reference -> Text,
        actor_kind -> SmallInt,
        actor_id -> Text,
        create_time -> Timestamptz,
    }
}

diesel::table! {
    download_counts (tenant_id, file_id) {
        tenant_id -> Uuid,
        file_id -> Uuid,
        download_count -> BigInt,
        last_access_time -> Timestamptz,
    }
}

diesel::table! {
    erasures (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        file_id -> Nullable<Uuid>,
        reason -> Text,
        requested_by -> Text,
        requested_by_issuer -> Text,
        request_time -> Timestamptz,
        approved_by -> Nullable<Text>,
        approved_by_issuer -> Nullable<Text>,
        approve_time -> Nullable<Timestamptz>,
        expire_time -> Timestamptz,
        use_time -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    use crate::db::sql::xid::Xid8;

    events (tenant_id, create_time, xid, n) {
        tenant_id -> Uuid,
        create_time -> Timestamptz,
        xid -> Xid8,
        n -> BigInt,
        kind -> SmallInt,
        file_id -> Uuid,
        version -> Integer,
        actor_id -> Text,
        owner_id -> Text,
        audience -> SmallInt,
        readers -> Array<Text>,
        epoch -> Integer,
        revision -> BigInt,
    }
}

diesel::table! {
    file_grants (tenant_id, file_id, id) {
        tenant_id -> Uuid,
        file_id -> Uuid,
        id -> Uuid,
        principal -> Text,
        permission -> SmallInt,
        share_id -> Nullable<Uuid>,
        source_id -> Nullable<Uuid>,
        expire_time -> Nullable<Timestamptz>,
        created_by -> Text,
        create_time -> Timestamptz,
        update_time -> Timestamptz,
    }
}

diesel::table! {
    file_readers (tenant_id, file_id, principal) {
        tenant_id -> Uuid,
        principal -> Text,
        file_id -> Uuid,
        create_time -> Timestamptz,
        name -> Text,
        size_bytes -> BigInt,
        is_deleted -> Bool,
        is_by_policy -> Bool,
        view_end_time -> Timestamptz,
        download_end_time -> Timestamptz,
        delete_end_time -> Timestamptz,
    }
}

diesel::table! {
    file_tags (tenant_id, file_id, tag) {
        tenant_id -> Uuid,
        file_id -> Uuid,
        tag -> Text,
    }
}

diesel::table! {
    files (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        owner_id -> Text,
        created_by -> Text,
        updated_by -> Text,
        name -> Text,
        original_name -> Text,
        category -> Text,
        title -> Text,
        description -> Text,
        metadata -> Jsonb,
        visibility -> SmallInt,
        audience -> SmallInt,
        version -> Integer,
        content_state -> SmallInt,
        scan_status -> SmallInt,
        mime_type -> Text,
        declared_mime_type -> Text,
        media_kind -> SmallInt,
        size_bytes -> BigInt,
        sha256 -> Nullable<Binary>,
        revision -> BigInt,
        create_time -> Timestamptz,
        update_time -> Timestamptz,
        delete_time -> Nullable<Timestamptz>,
        purge_time -> Nullable<Timestamptz>,
        archive_time -> Nullable<Timestamptz>,
        expire_time -> Nullable<Timestamptz>,
        deletion_time -> Nullable<Timestamptz>,
        retain_until_time -> Nullable<Timestamptz>,
        last_version -> Integer,
        hold_time -> Nullable<Timestamptz>,
        hold_by -> Nullable<Text>,
        hold_reason -> Nullable<Text>,
        state_reason -> Nullable<SmallInt>,
    }
}

diesel::table! {
    finished_jobs (tenant_id, id, create_time) {
        tenant_id -> Uuid,
        id -> Uuid,
        create_time -> Timestamptz,
        kind -> Text,
        payload -> Jsonb,
        outcome -> SmallInt,
        attempts -> Integer,
        last_error -> Text,
        enqueue_time -> Timestamptz,
    }
}

diesel::table! {
    idempotency_keys (tenant_id, request_id, create_time) {
        tenant_id -> Uuid,
        request_id -> Uuid,
        create_time -> Timestamptz,
        method -> SmallInt,
        payload_sha256 -> Binary,
        response -> Jsonb,
    }
}

diesel::table! {
    imports (tenant_id, source_sha256) {
        tenant_id -> Uuid,
        source_sha256 -> Binary,
        source -> Text,
        legacy_id -> Text,
        file_id -> Uuid,
        create_time -> Timestamptz,
    }
}

diesel::table! {
    installations (id) {
        id -> Uuid,
        create_time -> Timestamptz,
    }
}

diesel::table! {
    jobs (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        payload -> Jsonb,
        kind -> Text,
        state -> SmallInt,
        dedup_key -> Nullable<Text>,
        is_rerun_requested -> Bool,
        attempts -> Integer,
        run_time -> Timestamptz,
        lease_epoch -> Integer,
        lease_expire_time -> Nullable<Timestamptz>,
        last_error -> Text,
        enqueue_time -> Timestamptz,
        dependency_failures -> Integer,
    }
}

diesel::table! {
    owner_usage (tenant_id, owner_id) {
        tenant_id -> Uuid,
        owner_id -> Text,
        total_bytes -> BigInt,
        file_count -> BigInt,
        old_version_bytes -> BigInt,
        trash_file_count -> BigInt,
        trash_bytes -> BigInt,
    }
}

diesel::table! {
    quarantined_objects (tenant_id, storage_key, provider) {
        tenant_id -> Uuid,
        provider -> Text,
        storage_key -> Text,
        size_bytes -> BigInt,
        modify_time -> Timestamptz,
        reason -> Text,
        quarantine_time -> Timestamptz,
    }
}

diesel::table! {
    quota_alerts (tenant_id, number) {
        tenant_id -> Uuid,
        number -> BigInt,
        id -> Uuid,
        alert_level -> SmallInt,
        threshold_percent -> SmallInt,
        used_bytes -> BigInt,
        limit_bytes -> BigInt,
        create_time -> Timestamptz,
        emailed -> Array<Text>,
    }
}

diesel::table! {
    quotas (tenant_id) {
        tenant_id -> Uuid,
        limit_bytes -> BigInt,
        used_bytes -> BigInt,
        reserved_bytes -> BigInt,
        file_count_max -> BigInt,
        file_count -> BigInt,
        reserved_file_count -> BigInt,
        warning_percent -> SmallInt,
        critical_percent -> SmallInt,
        image_bytes_max -> BigInt,
        video_bytes_max -> BigInt,
        audio_bytes_max -> BigInt,
        document_bytes_max -> BigInt,
        other_bytes_max -> BigInt,
        ceiling_bytes -> BigInt,
        ceiling_file_count -> BigInt,
        revision -> BigInt,
        update_time -> Timestamptz,
        pending_deletion_bytes -> BigInt,
        pending_deletion_multiple -> BigInt,
        alert_level -> SmallInt,
        alert_above_bytes -> BigInt,
        alert_below_bytes -> BigInt,
        alert_count -> BigInt,
        last_warning_sent_time -> Nullable<Timestamptz>,
        alert_emails -> Array<Text>,
    }
}

diesel::table! {
    replications (provider) {
        provider -> Text,
        pending_blob_count -> BigInt,
        pending_bytes -> BigInt,
        oldest_pending_time -> Nullable<Timestamptz>,
        measure_time -> Timestamptz,
        counted_blob_count -> BigInt,
        counted_bytes -> BigInt,
        counted_oldest_time -> Nullable<Timestamptz>,
        counted_provider -> Nullable<Text>,
        counted_tenant_id -> Nullable<Uuid>,
        counted_create_time -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    restore_windows (id) {
        id -> Uuid,
        provider -> Text,
        start_time -> Timestamptz,
        end_time -> Timestamptz,
        decide_time -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    schedules (name) {
        name -> Text,
        next_time -> Timestamptz,
        last_time -> Timestamptz,
        done_time -> Timestamptz,
    }
}

diesel::table! {
    scrubs (provider) {
        provider -> Text,
        pass_start_time -> Timestamptz,
        left_bytes -> BigInt,
        measure_time -> Nullable<Timestamptz>,
        oldest_verified_time -> Nullable<Timestamptz>,
        ready_time -> Timestamptz,
        full_pass_start_time -> Nullable<Timestamptz>,
        full_pass_end_time -> Nullable<Timestamptz>,
        counted_bytes -> BigInt,
        counted_blob_time -> Nullable<Timestamptz>,
        counted_replica_time -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    share_grants (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        share_id -> Uuid,
        is_counted -> Bool,
        served_bytes -> BigInt,
        use_count -> Integer,
        expire_time -> Timestamptz,
    }
}

diesel::table! {
    shares (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        file_id -> Uuid,
        share_type -> SmallInt,
        permission -> SmallInt,
        token_hash -> Nullable<Binary>,
        password_hash -> Nullable<Text>,
        secret_revision -> BigInt,
        pinned_version -> Nullable<Integer>,
        expire_time -> Nullable<Timestamptz>,
        max_downloads -> Nullable<BigInt>,
        download_count -> BigInt,
        view_count -> BigInt,
        last_access_time -> Nullable<Timestamptz>,
        note -> Text,
        created_by -> Text,
        source_grant_id -> Nullable<Uuid>,
        create_time -> Timestamptz,
        update_time -> Timestamptz,
        revision -> BigInt,
        revoke_time -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    storage_breakers (process_id, provider) {
        process_id -> Uuid,
        provider -> Text,
        state -> SmallInt,
        failure_count -> Integer,
        last_error -> Text,
        report_time -> Timestamptz,
    }
}

diesel::table! {
    store_beats (provider, epoch, beat) {
        provider -> Text,
        epoch -> BigInt,
        beat -> BigInt,
        token -> Uuid,
        create_time -> Timestamptz,
    }
}

diesel::table! {
    stray_objects (tenant_id, storage_key, provider) {
        tenant_id -> Uuid,
        provider -> Text,
        storage_key -> Text,
        may_be_unfinished -> Bool,
        delete_after -> Timestamptz,
        is_being_deleted -> Bool,
        size_bytes -> BigInt,
    }
}

diesel::table! {
    sweep_candidates (tenant_id, provider, storage_key, multipart_id) {
        tenant_id -> Uuid,
        provider -> Text,
        storage_key -> Text,
        multipart_id -> Text,
        size_bytes -> BigInt,
        first_seen_time -> Timestamptz,
    }
}

diesel::table! {
    sweeps (provider) {
        provider -> Text,
        sweep_time -> Timestamptz,
        full_walk_time -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    tenants (id) {
        id -> Uuid,
        kind -> SmallInt,
        issuer -> Text,
        external_id -> Text,
        policy -> Jsonb,
        create_time -> Timestamptz,
        policy_revision -> BigInt,
        state -> SmallInt,
        state_time -> Nullable<Timestamptz>,
        state_reason -> Text,
        create_request_id -> Nullable<Uuid>,
        create_payload_sha256 -> Nullable<Binary>,
        deletion_file_count -> BigInt,
        deletion_object_count -> BigInt,
        deletion_bytes -> BigInt,
        erased_row_count -> BigInt,
        erased_object_count -> BigInt,
        erased_bytes -> BigInt,
        deletion_problem -> Text,
        provisional_time -> Nullable<Timestamptz>,
        first_call_count -> Integer,
        may_have_objects -> Bool,
        is_read_only -> Bool,
        rate_limits -> Jsonb,
    }
}

diesel::table! {
    tombstones (tenant_id, file_id) {
        tenant_id -> Uuid,
        file_id -> Uuid,
        name -> Text,
        size_bytes -> BigInt,
        sha256 -> Nullable<Binary>,
        purged_by -> Text,
        purge_time -> Timestamptz,
        expire_time -> Timestamptz,
    }
}

diesel::table! {
    upload_parts (tenant_id, upload_id, number) {
        tenant_id -> Uuid,
        upload_id -> Uuid,
        number -> Integer,
        size_bytes -> BigInt,
        etag -> Text,
        crc64nvme -> Binary,
        sha256_state -> Binary,
        block_checksums -> Nullable<Binary>,
        partial_block_checksum -> Nullable<Binary>,
    }
}

diesel::table! {
    uploads (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        state -> SmallInt,
        lease_epoch -> Integer,
        lease_expire_time -> Timestamptz,
        reserved_bytes -> BigInt,
        is_version -> Bool,
        blob_id -> Uuid,
        provider -> Text,
        storage_key -> Text,
        multipart_id -> Nullable<Text>,
        created_by -> Text,
        create_time -> Timestamptz,
        spec -> Nullable<Jsonb>,
        part_size_bytes -> Nullable<BigInt>,
        sniffed_mime_type -> Nullable<Text>,
        is_direct -> Bool,
        staging_key -> Nullable<Text>,
        renewed_part_count -> Integer,
        restart_count -> Integer,
        completion -> Nullable<Jsonb>,
    }
}

diesel::table! {
    usage_counters (tenant_id, category, media_kind) {
        tenant_id -> Uuid,
        category -> Text,
        media_kind -> SmallInt,
        file_count -> BigInt,
        total_bytes -> BigInt,
    }
}

diesel::table! {
    usage_measurements (tenant_id) {
        tenant_id -> Uuid,
        measure_time -> Timestamptz,
        file_count -> BigInt,
        current_bytes -> BigInt,
        old_version_count -> BigInt,
        old_version_bytes -> BigInt,
        trash_file_count -> BigInt,
        trash_bytes -> BigInt,
        owner_count -> BigInt,
    }
}

diesel::table! {
    usage_recalculations (tenant_id) {
        tenant_id -> Uuid,
        state -> SmallInt,
        epoch -> Integer,
        request_time -> Timestamptz,
        calculate_time -> Nullable<Timestamptz>,
        drift_bytes -> BigInt,
        drift_files -> BigInt,
        drift_reserved_bytes -> BigInt,
        drift_reserved_files -> BigInt,
        drift_pending_deletion_bytes -> BigInt,
        drift_counters -> BigInt,
    }
}

diesel::table! {
    usage_samples (tenant_id, day) {
        tenant_id -> Uuid,
        day -> Date,
        sample_time -> Timestamptz,
        used_bytes -> BigInt,
        limit_bytes -> BigInt,
        file_count -> BigInt,
        old_version_bytes -> BigInt,
        trash_bytes -> BigInt,
    }
}

diesel::table! {
    versions (tenant_id, file_id, version) {
        tenant_id -> Uuid,
        file_id -> Uuid,
        version -> Integer,
        blob_id -> Uuid,
        content_state -> SmallInt,
        scan_status -> SmallInt,
        mime_type -> Text,
        declared_mime_type -> Text,
        media_kind -> SmallInt,
        size_bytes -> BigInt,
        sha256 -> Nullable<Binary>,
        created_by -> Text,
        create_time -> Timestamptz,
        change_description -> Text,
        restored_from -> Nullable<Integer>,
        state_reason -> Nullable<SmallInt>,
    }
}

diesel::table! {
    visitor_attempts (tenant_id, scope, bucket) {
        tenant_id -> Uuid,
        scope -> SmallInt,
        bucket -> Integer,
        window_start_time -> Timestamptz,
        attempts -> Integer,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    use crate::db::sql::xid::Xid8;

    webhook_deliveries (tenant_id, webhook_id, position_xid, position_n) {
        tenant_id -> Uuid,
        webhook_id -> Uuid,
        position_xid -> Xid8,
        position_n -> BigInt,
        kind -> SmallInt,
        file_id -> Uuid,
        version -> Integer,
        actor_id -> Text,
        event_time -> Timestamptz,
        state -> SmallInt,
        attempts -> Integer,
        last_error -> Text,
        create_time -> Timestamptz,
        update_time -> Timestamptz,
        position_epoch -> Integer,
        revision -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    use crate::db::sql::xid::Xid8;

    webhooks (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        url -> Text,
        description -> Text,
        kinds -> Array<SmallInt>,
        sealed_secret -> Text,
        former_sealed_secret -> Nullable<Text>,
        former_secret_expire_time -> Nullable<Timestamptz>,
        state -> SmallInt,
        state_reason -> Text,
        position_xid -> Xid8,
        position_n -> BigInt,
        position_time -> Timestamptz,
        incarnation -> Text,
        failed_attempts -> Integer,
        last_error -> Text,
        first_failure_time -> Nullable<Timestamptz>,
        next_attempt_time -> Timestamptz,
        lease_epoch -> Integer,
        lease_expire_time -> Nullable<Timestamptz>,
        created_by -> Text,
        create_time -> Timestamptz,
        update_time -> Timestamptz,
        revision -> BigInt,
        position_epoch -> Integer,
    }
}

diesel::allow_tables_to_appear_in_same_query!(
    access_log,
    attachments,
    audit_entries,
    blob_checksums,
    blob_claims,
    blobs,
    credit_balances,
    credit_entries,
    download_counts,
    erasures,
    events,
    file_grants,
    file_readers,
    file_tags,
    files,
    finished_jobs,
    idempotency_keys,
    imports,
    installations,
    jobs,
    owner_usage,
    quarantined_objects,
    quota_alerts,
    quotas,
    replications,
    restore_windows,
    schedules,
    scrubs,
    share_grants,
    shares,
    storage_breakers,
    store_beats,
    stray_objects,
    sweep_candidates,
    sweeps,
    tenants,
    tombstones,
    upload_parts,
    uploads,
    usage_counters,
    usage_measurements,
    usage_recalculations,
    usage_samples,
    versions,
    visitor_attempts,
    webhook_deliveries,
    webhooks,
);

super::sql::tenant_tables!(
    access_log,
    attachments,
    audit_entries,
    blob_checksums,
    blob_claims,
    blobs,
    credit_balances,
    credit_entries,
    download_counts,
    erasures,
    events,
    file_grants,
    file_readers,
    file_tags,
    files,
    finished_jobs,
    idempotency_keys,
    imports,
    jobs,
    owner_usage,
    quarantined_objects,
    quota_alerts,
    quotas,
    share_grants,
    shares,
    stray_objects,
    sweep_candidates,
    tombstones,
    upload_parts,
    uploads,
    usage_counters,
    usage_measurements,
    usage_recalculations,
    usage_samples,
    versions,
    visitor_attempts,
    webhook_deliveries,
    webhooks,
);
