//! Applied migrations never change, and each change of a function has a revision.
//!
//! The lists below are append-only. Add an entry for a new migration or a new revision of the functions; the
//! test prints its checksum. Never change an entry: a database that has applied the former file would differ
//! from a new one.

use std::collections::BTreeMap;

use crate::{
    assert_none,
    sources::{Source, repository_files, source_file},
};

/// The migrations, each with the checksum of its files.
const MIGRATIONS: &[(&str, u64)] = &[
    ("20261130000100_create_app_schema", 0xe886_56d7_65fd_2193),
    ("20261130000200_create_tenants", 0x73be_c24e_9074_3b33),
    ("20261130000300_create_quotas", 0x6bd8_e506_8f1c_30e6),
    ("20261130000400_create_blobs", 0x7757_8862_8ef0_1a36),
    ("20261130000500_create_files", 0xdf9a_b07c_0e22_263a),
    ("20261130000600_create_uploads", 0xe8ac_7130_e303_edcf),
    ("20261130000700_create_idempotency_keys", 0x2768_524f_c522_dd73),
    ("20261130000800_create_audit_entries", 0x1d47_48cd_dfb4_c8cc),
    ("20261130000900_create_events", 0x5103_b5bc_e16f_cd69),
    ("20261130001000_create_webhooks", 0x4c78_f52e_4013_cbdb),
    ("20261130001100_create_jobs", 0x6dc5_ccc6_4239_8d4e),
    ("20261130001200_create_sweeps", 0xcf3f_1687_57b9_d00f),
    ("20261130001300_create_imports", 0x9175_738d_c196_b24f),
    ("20261130001400_create_commit_types", 0xdb6f_cfc7_5c59_ef19),
    ("20261130020100_add_actor_issuer", 0x2a63_75fc_7fb8_d928),
    ("20261130020200_name_service_ids", 0xcefa_0369_f334_7c13),
    ("20261130023000_add_uploader_to_commits", 0xf252_0a2f_ee8f_aa65),
    ("20261130024000_add_upload_progress", 0x3658_06b6_e17c_2017),
    ("20261130024100_limit_versions", 0x711e_d86c_2bc7_6aa9),
    ("20261130024200_count_pending_deletion", 0x089b_6c51_191d_34b1),
    ("20261130024300_index_scheduled_blobs", 0x9001_d86c_bf91_6e2d),
    ("20261130024400_create_erasures", 0x5e1f_cc7f_0369_4682),
    ("20261130025000_normalize_tags", 0x9821_f2cc_8ab9_718f),
    ("20261130111100_add_provisional_tenants", 0x873f_eeca_802b_d557),
    ("20261130114100_count_stray_objects", 0x3a6e_1912_a675_79d3),
    ("20261130114200_record_upload_completion", 0x522e_d43e_382e_0a93),
    ("20261130116100_add_tick_done_time", 0xc7ee_1cc2_b9ff_6b0b),
    ("20261130116110_count_dependency_failures", 0xcaa3_4a36_d358_63db),
    ("20261130116120_create_storage_breakers", 0xf01a_f1f3_7417_ea46),
    ("20261130117100_create_store_beats", 0xf57a_e952_fd0d_c0ef),
    ("20261130118100_create_retention_horizons", 0x2448_49f7_f981_4761),
    ("20261201010000_create_position_epochs", 0xf8db_b2f5_1201_4681),
    ("20261201010001_index_epochs_of_events", 0x9d8a_e6da_d23c_57c1),
    ("20261201020000_order_events_of_files", 0x6b86_158a_fb9a_02e9),
    ("20261201030000_create_restore_windows", 0x2733_bce3_ac7e_2825),
    ("20261201040000_record_blob_verifications", 0x98b9_e2df_f0e8_8daf),
    ("20261201040010_record_blob_replicas", 0x68b8_fa2e_2b6f_d843),
    ("20261201050000_add_block_checksums", 0xccda_889f_6829_307e),
    ("20261201090000_narrow_blob_indexes", 0x1059_c873_2d46_dd84),
    ("20261202010100_index_pending_replicas", 0x5db9_3bf5_6f02_99e9),
    ("20261202010110_identify_blob_claims", 0x5340_76ee_ac69_4b08),
    ("20261202010120_resume_blob_counts", 0x7054_fd31_abe8_a854),
    ("20261203010000_create_file_grants", 0xbdbc_0ad8_86a6_816a),
    ("20261203020000_create_credits", 0xc720_5c0e_051b_3760),
    ("20261203025000_create_quota_alerts", 0x4f65_2ff0_350b_bb99),
    ("20261203025100_create_usage_recalculations", 0xa0fc_a21c_2b50_d1fd),
    ("20261203025200_add_alert_emails", 0xba50_65cc_0096_7810),
    ("20261203030000_add_read_only_tenants", 0x99a8_5167_7828_6161),
    ("20261203030100_create_usage_measurements", 0xf30e_838c_cac3_e509),
    ("20261203040000_create_shares", 0xec76_6aba_d273_72d8),
    ("20261203045000_create_access_log", 0x013c_1cec_3e27_154a),
    ("20261203045010_create_share_grants", 0xfd57_4b2a_d718_dd79),
    ("20261204020000_add_tenant_rate_limits", 0x5d6e_3032_a833_2428),
];

/// The checksums of all functions, one per revision, starting with revision 1.
const FUNCTION_REVISIONS: &[u64] = &[0xe533_3352_88a5_d9be, 0x4ded_a7d6_fd41_8f0b, 0xe83c_73fa_7651_864c];

/// The file that contains the constant `FUNCTIONS_REVISION`.
const REVISION_FILE: &str = "src/db/migrate/embedded.rs";

/// Adds a file to a checksum (FNV-1a, which needs no library).
fn add_file(checksum: u64, name: &str, text: &str) -> u64 {
    let bytes = name.bytes().chain([0]).chain(text.bytes()).chain([0]);
    bytes.fold(checksum, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// Returns the checksum of each directory in `migrations/`.
fn sum_directories(files: &[Source]) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for file in files {
        let Some(path) = file.path.strip_prefix("migrations/") else { continue };
        let Some((directory, name)) = path.split_once('/') else { continue };
        let sum = sums.entry(directory.to_owned()).or_insert(0xcbf2_9ce4_8422_2325);
        *sum = add_file(*sum, name, &file.text);
    }
    sums
}

fn find_changed_migrations(files: &[Source], frozen: &[(&str, u64)]) -> Vec<String> {
    let mut sums = sum_directories(files);
    sums.remove("functions");
    let mut findings = Vec::new();
    for (name, frozen_sum) in frozen {
        match sums.remove(*name) {
            Some(sum) if sum == *frozen_sum => {}
            Some(_) => findings.push(format!("{name}: was changed; add a new migration instead")),
            None => findings.push(format!("{name}: was deleted; databases have applied it")),
        }
    }
    let newest = frozen.last().map_or("", |(name, _)| *name);
    for (name, sum) in sums {
        findings.push(format!("{name}: add (\"{name}\", {sum:#018x}) to {}", file!()));
        if name.as_str() < newest {
            findings.push(format!("{name}: its timestamp must be later than that of {newest}"));
        }
    }
    findings
}

fn find_changed_functions(files: &[Source], revisions: &[u64]) -> Vec<String> {
    let sum = sum_directories(files).get("functions").copied().unwrap_or_default();
    let constant = files.iter().find(|file| file.path == REVISION_FILE).and_then(|file| {
        let (_, value) = file.text.split_once("FUNCTIONS_REVISION: u32 = ")?;
        value.split_once(';')?.0.parse::<usize>().ok()
    });
    let mut findings = Vec::new();
    if revisions.last() != Some(&sum) {
        findings
            .push(format!("a function was changed: add {sum:#018x} to FUNCTION_REVISIONS in {}", file!()));
    }
    if constant != Some(revisions.len()) {
        findings.push(format!("{REVISION_FILE}: FUNCTIONS_REVISION must be {}", revisions.len()));
    }
    findings
}

#[test]
fn applied_migrations_never_change() {
    assert_none(&find_changed_migrations(&repository_files(), MIGRATIONS));
}

#[test]
fn changed_functions_have_new_revision() {
    assert_none(&find_changed_functions(&repository_files(), FUNCTION_REVISIONS));
}

#[test]
fn changed_migrations_and_functions_are_found() {
    let up = source_file("migrations/2_add_x/up.sql", "SELECT 1;");
    let sum = sum_directories(std::slice::from_ref(&up))["2_add_x"];
    assert_none(&find_changed_migrations(std::slice::from_ref(&up), &[("2_add_x", sum)]));
    let changed = source_file("migrations/2_add_x/up.sql", "SELECT 2;");
    assert_eq!(find_changed_migrations(&[changed], &[("2_add_x", sum)]).len(), 1);
    assert_eq!(find_changed_migrations(&[], &[("2_add_x", sum)]).len(), 1);
    let earlier = source_file("migrations/1_add_y/up.sql", "SELECT 1;");
    assert_eq!(find_changed_migrations(&[earlier, up], &[("2_add_x", sum)]).len(), 2);

    let function = source_file("migrations/functions/x.sql", "SELECT 1;");
    let constant = source_file(REVISION_FILE, "const FUNCTIONS_REVISION: u32 = 2;");
    let sum = sum_directories(std::slice::from_ref(&function))["functions"];
    let files = [function, constant];
    assert_none(&find_changed_functions(&files, &[7, sum]));
    assert_eq!(find_changed_functions(&files, &[7]).len(), 2);
    assert_eq!(find_changed_functions(&files, &[sum]).len(), 1);
}
