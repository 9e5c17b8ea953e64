//! A large file straight into the S3 server, by the client that the service uses too: 8 MiB parts, four at a time. What
//! an upload costs where nobody asks who is calling, hashes, or writes anything down.

use std::{env, sync::Arc};

use futures::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, aws::AmazonS3Builder, path::Path};

use crate::{
    Outcome,
    lab::{Lab, request_id},
    meter::{Meter, Sample},
    wire::BLOCK_SIZE_BYTES,
};

const PART_SIZE_BYTES: usize = 8 * 1024 * 1024;
const PARTS_IN_FLIGHT: usize = 4;

/// Whether the signature covers the bytes, which costs the client a SHA-256 of them, and the server another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signing {
    Payload,
    Headers,
}

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

    fn client(&self, signing: Signing) -> Outcome<Arc<dyn ObjectStore>> {
        let client = AmazonS3Builder::new()
            .with_endpoint(&self.endpoint)
            .with_allow_http(true)
            .with_region(&self.region)
            .with_bucket_name(&self.bucket)
            .with_access_key_id(&self.access_key)
            .with_secret_access_key(&self.secret_key)
            .with_unsigned_payload(signing == Signing::Headers);
        Ok(Arc::new(client.build()?))
    }
}

#[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
pub(crate) async fn upload(lab: &mut Lab, signing: Signing) -> Outcome<Sample> {
    let garage = lab.site.garage.as_ref().ok_or("there is no S3 server")?;
    let client = garage.client(signing)?;
    let path = Path::from(format!("direct/{}", request_id()));
    let block = lab.large.block().clone();
    let part: PutPayload = (0..PART_SIZE_BYTES / BLOCK_SIZE_BYTES).map(|_| block.clone()).collect();
    let parts = lab.large.size_bytes() / PART_SIZE_BYTES as u64;
    let gibibytes = (parts * PART_SIZE_BYTES as u64) as f64 / f64::from(1 << 30);

    let meter = Meter::start(&lab.site, None, garage.pid);
    let mut upload = client.put_multipart(&path).await?;
    let writes: Vec<_> = (0..parts).map(|_| upload.put_part(part.clone())).collect();
    stream::iter(writes).buffer_unordered(PARTS_IN_FLIGHT).try_collect::<Vec<_>>().await?;
    upload.complete().await?;
    let sample = meter.stop(&lab.site, gibibytes, gibibytes);
    client.delete(&path).await?;
    Ok(sample)
}
