//! The S3 server of the baselines.

use std::{env, sync::Arc};

use object_store::{ObjectStore, aws::AmazonS3Builder};

use crate::Outcome;

/// The S3 server that `scripts/with-garage` started.
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
    /// Reads the settings from the environment. Returns `None` if there is no S3 server.
    pub(crate) fn from_env() -> Option<Self> {
        let variable = |name: &str| env::var(format!("STRONGROOM_TEST_{name}")).ok();
        Some(Self {
            endpoint: variable("S3_ENDPOINT")?,
            region: variable("S3_REGION")?,
            bucket: variable("S3_BUCKET")?,
            access_key: variable("S3_ACCESS_KEY")?,
            secret_key: variable("S3_SECRET_KEY")?,
            pid: variable("GARAGE_PID").and_then(|pid| pid.parse().ok()),
        })
    }

    /// Creates a client that signs the body too, or only the headers.
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
