//! The S3 server that the service is measured beside.

use std::{env, sync::Arc};

use object_store::{ObjectStore, aws::AmazonS3Builder};

use crate::Outcome;

/// The S3 server that `scripts/with-garage` lends.
#[derive(Debug, Clone)]
pub(crate) struct Garage {
    pub(crate) endpoint: String,
    pub(crate) region: String,
    pub(crate) bucket: String,
    pub(crate) access_key: String,
    pub(crate) secret_key: String,
    pub(crate) pid: Option<u32>,
}

impl Garage {
    /// Nothing where there is none.
    pub(crate) fn lent() -> Option<Self> {
        let lent = |name: &str| env::var(format!("STRONGROOM_TEST_{name}")).ok();
        Some(Self {
            endpoint: lent("S3_ENDPOINT")?,
            region: lent("S3_REGION")?,
            bucket: lent("S3_BUCKET")?,
            access_key: lent("S3_ACCESS_KEY")?,
            secret_key: lent("S3_SECRET_KEY")?,
            pid: lent("GARAGE_PID").and_then(|pid| pid.parse().ok()),
        })
    }

    /// A client that signs the bytes too, or their headers alone.
    pub(crate) fn client(&self, signs_payload: bool) -> Outcome<Arc<dyn ObjectStore>> {
        let client = AmazonS3Builder::new()
            .with_endpoint(&self.endpoint)
            .with_allow_http(true)
            .with_region(&self.region)
            .with_bucket_name(&self.bucket)
            .with_access_key_id(&self.access_key)
            .with_secret_access_key(&self.secret_key)
            .with_unsigned_payload(!signs_payload);
        Ok(Arc::new(client.build()?))
    }
}
