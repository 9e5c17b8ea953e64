//! `[scanning]`: malware scanning.

use serde::Deserialize;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScanningConfig {
    /// Accepts uploads as `NOT_SCANNED` if the policy requires a scan but no scanner is configured.
    pub accept_unscanned: bool,
}
