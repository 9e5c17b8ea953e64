//! Periodically audits the refusals that this process holds in memory. Every process that serves requests runs
//! this.

use std::sync::Arc;

use crate::app::{App, refusals};

/// Audits refusals until `shutdown` completes. The drain audits the remaining ones.
pub async fn write_refusals(app: Arc<App>, shutdown: impl Future<Output = ()>) {
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = tokio::time::sleep(app.limits().rate_limits.refusal_audit_interval()) => {}
            () = &mut shutdown => return,
        }
        refusals::write_refusals(&app).await;
    }
}
