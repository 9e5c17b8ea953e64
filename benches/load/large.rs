//! Large files, one stream, and many at once.

use tokio::task::JoinSet;

use crate::{
    Outcome,
    lab::{Lab, request_id},
    meter::{Meter, Sample},
    process,
    site::Store,
    wire,
};

const CROWD: usize = 64;

#[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
fn gibibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

pub(crate) async fn upload(lab: &mut Lab, store: Store) -> Outcome<Sample> {
    let mut files = lab.connect(store).await?;
    let gibibytes = gibibytes(lab.large.size_bytes());
    let meter = Meter::start(&lab.site, Some(lab.site.at(store).service.pid()), lab.site.store_pid(store));
    wire::upload(&mut files, &lab.hot, &lab.large, request_id()).await?;
    Ok(meter.stop(&lab.site, gibibytes, gibibytes))
}

pub(crate) async fn download(lab: &mut Lab, store: Store) -> Outcome<Sample> {
    let mut files = lab.connect(store).await?;
    let id = lab.downloads.get(store.name()).ok_or("there is nothing to download")?;
    let expected = lab.large.size_bytes();
    let meter = Meter::start(&lab.site, Some(lab.site.at(store).service.pid()), lab.site.store_pid(store));
    let received = wire::download(&mut files, &lab.hot, id).await?;
    let sample = meter.stop(&lab.site, gibibytes(expected), gibibytes(expected));
    if received == expected { Ok(sample) } else { Err(format!("{received} bytes came").into()) }
}

/// On a service that has done nothing before, so that the peak is of this alone. A connection each: what they buffer
/// is part of what is measured.
pub(crate) async fn crowd(lab: &mut Lab) -> Outcome<Sample> {
    let place = lab.site.place(Store::Costless, "crowd").await?;
    let pid = place.service.pid();
    let mut clients = Vec::new();
    for token in lab.many.iter().cycle().take(CROWD) {
        clients.push((wire::connect(&place.service.grpc).await?, token.clone(), lab.crowd.clone()));
    }
    let total = gibibytes(lab.crowd.size_bytes() * CROWD as u64);
    let meter = Meter::start(&lab.site, Some(pid), None);
    let mut uploads = JoinSet::new();
    for (mut files, token, content) in clients {
        uploads.spawn(async move { wire::upload(&mut files, &token, &content, request_id()).await });
    }
    while let Some(uploaded) = uploads.join_next().await {
        uploaded??;
    }
    let mut sample = meter.stop(&lab.site, total, total);
    sample.peak_bytes = process::peak_resident_bytes(pid);
    drop(place.service);
    place.database.drop().await;
    Ok(sample)
}
