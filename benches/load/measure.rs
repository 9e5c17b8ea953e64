//! Who measures which row.

use crate::{Outcome, direct, fsync, lab::Lab, large, meter::Sample, row::Row, small};

pub(crate) async fn measure(row: Row, lab: &mut Lab) -> Outcome<Sample> {
    match row {
        Row::Upload(store) => large::upload(lab, store).await,
        Row::Download(store) => large::download(lab, store).await,
        Row::Direct(signing) => direct::upload(lab, signing).await,
        Row::Small { store, clients, tenants } => small::uploads(lab, store, clients, tenants).await,
        Row::Pgbench { clients, tenants } => {
            let pgbench = lab.pgbench.as_ref().ok_or("pgbench was not prepared")?;
            pgbench.run(&lab.site, lab.window, clients, tenants).await
        }
        Row::Fsync { clients } => fsync::run(lab, clients).await,
        Row::Crowd => large::crowd(lab).await,
    }
}
