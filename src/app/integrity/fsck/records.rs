//! Checks the records of the database against each other.

use super::{FsckReport, Invariant};
use crate::{
    app::Error,
    db::{Database, SystemTx, fsck},
};

/// Checks that quotas and usage counters match the stored files, that balances of credits match their entries, that
/// readers match grants, and that every version has an audit entry.
pub(super) async fn check_records(
    db: &Database,
    audit_days: u32,
    report: &mut FsckReport,
) -> Result<(), Error> {
    let mut tx = db.system_tx().await?;
    check_quotas(&mut tx, report).await?;
    check_credits(&mut tx, report).await?;
    for drift in fsck::list_reader_drifts(&mut tx).await? {
        let subject = format!("file {} reader {}", drift.file, drift.principal);
        let problem = "differs from the grants of the file".to_owned();
        report.add_violation(Invariant::Readers, drift.tenant, subject, problem);
    }
    for (tenant, file, version) in fsck::list_unaudited_versions(&mut tx, audit_days).await? {
        report.add_violation(
            Invariant::Audit,
            tenant,
            format!("file {file} version {version}"),
            "has no audit entry".to_owned(),
        );
    }
    Ok(tx.commit().await?)
}

/// Checks that quotas of tenants and users, and usage counters, match the stored files.
async fn check_quotas(tx: &mut SystemTx, report: &mut FsckReport) -> Result<(), Error> {
    for drift in fsck::list_quota_drifts(tx).await? {
        let problem = format!(
            "used {} of {} charged bytes, {} of {} files; reserved {} of {} open bytes, {} of {} uploads; \
             {} of {} bytes pending deletion",
            drift.used_bytes,
            drift.charged_bytes,
            drift.file_count,
            drift.charged_files,
            drift.reserved_bytes,
            drift.open_bytes,
            drift.reserved_file_count,
            drift.open_uploads,
            drift.pending_deletion_bytes,
            drift.scheduled_bytes,
        );
        report.add_violation(Invariant::Quotas, drift.tenant, "quotas", problem);
    }
    for drift in fsck::list_usage_drifts(tx).await? {
        let problem = format!("counts {} bytes, {} are stored", drift.counted_bytes, drift.stored_bytes);
        report.add_violation(
            Invariant::Quotas,
            drift.tenant,
            format!("usage_counters {}/{}", drift.category, drift.media_kind),
            problem,
        );
    }
    for drift in fsck::list_user_quota_drifts(tx).await? {
        let problem = format!(
            "used {} of {} charged bytes, {} of {} files; reserved {} of {} open bytes, {} of {} uploads",
            drift.used_bytes,
            drift.charged_bytes,
            drift.file_count,
            drift.charged_files,
            drift.reserved_bytes,
            drift.open_bytes,
            drift.reserved_file_count,
            drift.open_uploads,
        );
        let subject = format!("user_quotas {}", drift.user_id);
        report.add_violation(Invariant::Quotas, drift.tenant, subject, problem);
    }
    Ok(())
}

/// Checks that balances of credits match their entries.
async fn check_credits(tx: &mut SystemTx, report: &mut FsckReport) -> Result<(), Error> {
    for drift in fsck::list_credit_drifts(tx).await? {
        let problem = format!(
            "has {} credits, the entries add up to {}; {} of {} entries exist, {} have a wrong balance",
            drift.balance,
            drift.entry_sum,
            drift.found_entry_count,
            drift.last_number,
            drift.wrong_entry_count,
        );
        report.add_violation(Invariant::Credits, drift.tenant, format!("user {}", drift.user_id), problem);
    }
    Ok(())
}
