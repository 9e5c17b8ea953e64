//! Maps each row to its measurement.

use crate::{
    Outcome, direct, fixture::Fixture, fsync, large, meter::Sample, options::Options, row::Row, small,
};

/// Measures one row once. A row that did nothing is an error.
pub(crate) async fn measure(row: Row, fixture: &mut Fixture, options: &Options) -> Outcome<Sample> {
    let sample =
        measure_row(row, fixture, options).await.map_err(|error| format!("{}: {error}", row.name()))?;
    match sample.rate > 0.0 {
        true => Ok(sample),
        false => Err(format!("{}: nothing was measured", row.name()).into()),
    }
}

async fn measure_row(row: Row, fixture: &mut Fixture, options: &Options) -> Outcome<Sample> {
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
        Row::List(page) => {
            let lists = fixture.lists.as_ref().ok_or("the lists were not prepared")?;
            lists.measure(&fixture.environment, page, options).await
        }
        Row::ConcurrentUploads => large::upload_concurrently(fixture).await,
    }
}
