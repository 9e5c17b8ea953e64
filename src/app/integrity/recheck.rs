//! Checks an object again that a download found suspect. The download does not wait for it.

use std::sync::Arc;

use super::{
    block_record::correct_block_checksums,
    damage::{DamageRecorder, RecordedSuspicion, Suspicion},
};
use crate::{
    app::{App, Error},
    db::blobs::Blob,
    domain::ids::TenantId,
    storage::ObjectStorage,
};

/// An object that is being read, and that may be missing or damaged.
#[derive(Clone)]
pub(in crate::app) struct SuspectObject {
    pub(in crate::app) app: Arc<App>,
    pub(in crate::app) tenant: TenantId,
    /// The store as background work uses it.
    pub(in crate::app) store: Arc<dyn ObjectStorage>,
    pub(in crate::app) blob: Blob,
}

impl SuspectObject {
    /// Checks the object again in the background and records a confirmed problem. The reader does not wait
    /// for it: if the check fails, the next reader or `fsck` finds the problem.
    pub(in crate::app) fn recheck_in_background(&self, suspicion: Suspicion) {
        let suspect = self.clone();
        let recheck = async move {
            if let Err(error) = suspect.recheck(suspicion).await {
                let (tenant, key) = (suspect.tenant, &suspect.blob.key);
                tracing::warn!(%tenant, %key, %error, "failed to read a suspect object again");
            }
        };
        self.app.tasks.spawn(tracing::Instrument::instrument(recheck, tracing::Span::current()));
    }

    async fn recheck(&self, suspicion: Suspicion) -> Result<(), Error> {
        let Self { app, tenant, store, blob } = self;
        let (tenant, key, recorder) = (*tenant, &blob.key, DamageRecorder::of(app));
        match recorder.check_and_mark(store.as_ref(), tenant, blob, suspicion, None).await? {
            // The repair of the blob from its copy finds it by the state of its versions.
            RecordedSuspicion::Damaged { .. } => {}
            RecordedSuspicion::Intact(block_checksums) => {
                tracing::warn!(%tenant, %key, ?suspicion, "read a suspect object again, and found it intact");
                correct_block_checksums(recorder, tenant, blob, block_checksums.as_ref()).await?;
            }
            RecordedSuspicion::Unproven => {
                tracing::warn!(
                    %tenant, %key, ?suspicion,
                    "checked a suspect object again, but not all of its bytes: it may be intact or damaged"
                );
            }
        }
        Ok(())
    }
}
