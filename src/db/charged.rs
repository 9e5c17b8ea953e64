//! The files that count against quotas.

/// Selects the files of tenant $1 that count against its quota, with their versions, as `fsck` does.
pub(super) const CHARGED: &str = "files AS f JOIN versions AS v ON v.tenant_id = f.tenant_id AND v.file_id = f.id
     WHERE f.tenant_id = $1 AND (f.delete_time IS NULL OR (
         SELECT (t.policy -> 'trash' ->> 'counts_against_quota')::boolean FROM tenants AS t WHERE t.id = $1))";
