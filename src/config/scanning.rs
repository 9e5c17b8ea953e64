//! `[scanning]`: malware scanning.

use serde::Deserialize;

/// Malware scanning.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScanningConfig {
    /// Accepts uploads as NOT_SCANNED where the policy requires a scan and this server has no scanner.
    pub accept_unscanned: bool,
}
