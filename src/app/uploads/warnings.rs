//! Warnings that an upload returns.

use super::receive::content::ContentSummary;
use crate::domain::quota::{QuotaLevel, QuotaState};

/// The size in bytes above which an upload returns a large-file warning.
const LARGE_FILE_BYTES: u64 = 10 * 1024 * 1024;

/// A non-fatal problem with an upload.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Warning {
    /// A machine-readable code.
    pub code: WarningCode,
    /// A human-readable message.
    pub message: String,
}

/// The codes of warnings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum WarningCode {
    /// The file is larger than 10 MiB.
    LargeFile,
    /// Usage is above the quota's warning threshold.
    QuotaWarning,
    /// Usage is above the quota's critical threshold.
    QuotaCritical,
    /// The detected content type differs from the declared one.
    TypeCorrected,
}

/// Returns the warnings about the content.
pub(super) fn content_warnings(declared_mime_type: &str, content: &ContentSummary) -> Vec<Warning> {
    let mut warnings = Vec::new();
    if content.size_bytes > LARGE_FILE_BYTES {
        warnings.push(Warning {
            code: WarningCode::LargeFile,
            message: "large file: upload may take a while".to_owned(),
        });
    }
    if content.mime_type.is_corrected {
        let message =
            format!("declared as {declared_mime_type}, detected as {}", content.mime_type.mime_type);
        warnings.push(Warning { code: WarningCode::TypeCorrected, message });
    }
    warnings
}

/// Returns the warning about the quota after the upload, if any.
pub(super) fn quota_warning(quota: &QuotaState) -> Option<Warning> {
    let code = match quota.level {
        QuotaLevel::Ok => return None,
        QuotaLevel::Warning => WarningCode::QuotaWarning,
        QuotaLevel::Critical | QuotaLevel::Full => WarningCode::QuotaCritical,
    };
    let message =
        format!("{} of {} bytes of the tenant's quota are used", quota.used_bytes, quota.limit_bytes);
    Some(Warning { code, message })
}
