//! Remarks that do not stop an upload.

use super::receive::content::Measured;
use crate::domain::quota::{QuotaLevel, QuotaState};

/// Above this a file is called large (POLICY: 10 MiB).
const LARGE_FILE_BYTES: u64 = 10 * 1024 * 1024;

/// A remark.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Warning {
    /// Which, for programs.
    pub code: WarningCode,
    /// For people.
    pub message: String,
}

/// The remarks there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum WarningCode {
    /// The file is large.
    LargeFile,
    /// The quota's warning threshold is passed.
    QuotaWarning,
    /// The quota's critical threshold is passed.
    QuotaCritical,
    /// The bytes are of another type than declared.
    TypeCorrected,
}

/// What there is to say about the file itself.
pub(super) fn of_content(declared_mime_type: &str, content: &Measured) -> Vec<Warning> {
    let mut warnings = Vec::new();
    if content.size_bytes > LARGE_FILE_BYTES {
        warnings.push(Warning {
            code: WarningCode::LargeFile,
            message: "large file: upload may take a while".to_owned(),
        });
    }
    if content.mime_type.is_corrected {
        let message =
            format!("declared as {declared_mime_type}, recognised as {}", content.mime_type.mime_type);
        warnings.push(Warning { code: WarningCode::TypeCorrected, message });
    }
    warnings
}

/// What there is to say about the quota after the upload.
pub(super) fn of_quota(quota: &QuotaState) -> Option<Warning> {
    let code = match quota.level {
        QuotaLevel::Ok => return None,
        QuotaLevel::Warning => WarningCode::QuotaWarning,
        QuotaLevel::Critical | QuotaLevel::Full => WarningCode::QuotaCritical,
    };
    let message =
        format!("{} of {} bytes of the tenant's quota are used", quota.used_bytes, quota.limit_bytes);
    Some(Warning { code, message })
}
