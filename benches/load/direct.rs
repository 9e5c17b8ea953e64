//! A large file straight into the S3 server, by the client that the service uses too: 8 MiB parts, four at a time. What
//! an upload costs where nobody asks who is calling, hashes, or writes anything down.

use futures::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectStoreExt, PutPayload, path::Path};

use crate::{
    Outcome,
    lab::{Lab, request_id},
    meter::{Meter, Sample},
    row::Signing,
    wire::BLOCK_SIZE_BYTES,
};

const PART_SIZE_BYTES: usize = 8 * 1024 * 1024;
const PARTS_IN_FLIGHT: usize = 4;

#[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
pub(crate) async fn upload(lab: &mut Lab, signing: Signing) -> Outcome<Sample> {
    let garage = lab.site.garage.as_ref().ok_or("there is no S3 server")?;
    let client = garage.client(signing == Signing::Payload)?;
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
