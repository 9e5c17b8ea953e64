//! Large files: in one stream, and many concurrently.

use tokio::task::JoinSet;

use crate::{
    Outcome,
    client::{self, request_id},
    environment::Store,
    fixture::Fixture,
    meter::{Meter, Sample},
    process,
};

const CONCURRENT_UPLOADS: usize = 64;

#[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
fn gibibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

pub(crate) async fn upload(fixture: &mut Fixture, store: Store) -> Outcome<Sample> {
    let mut files = fixture.connect(store).await?;
    let gibibytes = gibibytes(fixture.large.size_bytes());
    let meter = Meter::start(
        &fixture.environment,
        Some(fixture.environment.instance(store).service.pid()),
        fixture.environment.store_pid(store),
    );
    client::upload(&mut files, &fixture.hot, &fixture.large, request_id()).await?;
    Ok(meter.stop(&fixture.environment, gibibytes, gibibytes))
}

pub(crate) async fn download(fixture: &mut Fixture, store: Store) -> Outcome<Sample> {
    let mut files = fixture.connect(store).await?;
    let id = fixture.downloads.get(store.name()).ok_or("no file was uploaded for the download")?;
    let expected = fixture.large.size_bytes();
    let meter = Meter::start(
        &fixture.environment,
        Some(fixture.environment.instance(store).service.pid()),
        fixture.environment.store_pid(store),
    );
    let received = client::download(&mut files, &fixture.hot, id).await?;
    let sample = meter.stop(&fixture.environment, gibibytes(expected), gibibytes(expected));
    if received == expected {
        Ok(sample)
    } else {
        Err(format!("received {received} bytes; expected {expected}").into())
    }
}

/// Uploads concurrently to a new service, so that the memory peak is caused by these uploads only. Each
/// upload has its own connection, because connection buffers are part of the measured memory.
pub(crate) async fn upload_concurrently(fixture: &mut Fixture) -> Outcome<Sample> {
    let instance = fixture.environment.start_instance(Store::Discard, "concurrent").await?;
    let pid = instance.service.pid();
    let mut clients = Vec::new();
    for token in fixture.many.iter().cycle().take(CONCURRENT_UPLOADS) {
        clients.push((
            client::connect(&instance.service.grpc).await?,
            token.clone(),
            fixture.concurrent.clone(),
        ));
    }
    let total = gibibytes(fixture.concurrent.size_bytes() * CONCURRENT_UPLOADS as u64);
    let meter = Meter::start(&fixture.environment, Some(pid), None);
    let mut uploads = JoinSet::new();
    for (mut files, token, content) in clients {
        uploads.spawn(async move { client::upload(&mut files, &token, &content, request_id()).await });
    }
    while let Some(uploaded) = uploads.join_next().await {
        uploaded??;
    }
    let mut sample = meter.stop(&fixture.environment, total, total);
    sample.peak_bytes = process::peak_resident_bytes(pid);
    instance.close().await;
    Ok(sample)
}
