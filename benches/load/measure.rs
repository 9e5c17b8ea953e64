//! Maps each row to its measurement.

use crate::{Outcome, direct, fixture::Fixture, fsync, large, meter::Sample, row::Row, small};

pub(crate) async fn measure(row: Row, fixture: &mut Fixture) -> Outcome<Sample> {
    match row {
        Row::Upload(store) => large::upload(fixture, store).await,
        Row::Download(store) => large::download(fixture, store).await,
        Row::Direct(signing) => direct::upload(fixture, signing).await,
        Row::Small { store, clients, tenants } => {
            small::measure_uploads(fixture, store, clients, tenants).await
        }
        Row::Pgbench { clients, tenants } => {
            let pgbench = fixture.pgbench.as_ref().ok_or("pgbench was not prepared")?;
            pgbench.run(&fixture.environment, fixture.window, clients, tenants).await
        }
        Row::Fsync { clients } => fsync::measure(fixture, clients).await,
        Row::ConcurrentUploads => large::upload_concurrently(fixture).await,
    }
}
