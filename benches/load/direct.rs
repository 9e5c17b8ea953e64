//! Uploads a large file directly to the S3 server with the same client library as the service: 8 MiB parts,
//! four at a time. This is the cost of an upload without authentication, hashing or database rows.

use futures::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectStoreExt, PutPayload, path::Path};

use crate::{
    Outcome,
    client::{BLOCK_SIZE_BYTES, request_id},
    fixture::Fixture,
    meter::{Meter, Sample},
    row::Signing,
};

const PART_SIZE_BYTES: usize = 8 * 1024 * 1024;
const PARTS_IN_FLIGHT: usize = 4;

#[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
pub(crate) async fn upload(fixture: &mut Fixture, signing: Signing) -> Outcome<Sample> {
    let garage = fixture.environment.garage.as_ref().ok_or("no S3 server is available")?;
    let client = garage.client(signing == Signing::Payload)?;
    let path = Path::from(format!("direct/{}", request_id()));
    let block = fixture.large.block().clone();
    let part: PutPayload = (0..PART_SIZE_BYTES / BLOCK_SIZE_BYTES).map(|_| block.clone()).collect();
    let parts = fixture.large.size_bytes() / PART_SIZE_BYTES as u64;
    let gibibytes = (parts * PART_SIZE_BYTES as u64) as f64 / f64::from(1 << 30);

    let meter = Meter::start(&fixture.environment, None, garage.pid);
    let mut upload = client.put_multipart(&path).await?;
    let writes: Vec<_> = (0..parts).map(|_| upload.put_part(part.clone())).collect();
    stream::iter(writes).buffer_unordered(PARTS_IN_FLIGHT).try_collect::<Vec<_>>().await?;
    upload.complete().await?;
    let sample = meter.stop(&fixture.environment, gibibytes, gibibytes);
    client.delete(&path).await?;
    Ok(sample)
}
