ALTER TABLE blobs DROP CONSTRAINT blobs_tenant_id_storage_key_provider_key;
ALTER TABLE blobs ADD CONSTRAINT blobs_tenant_id_provider_storage_key_key UNIQUE (tenant_id, provider, storage_key);
DROP TABLE sweeps, sweep_candidates;
