//! What we want to reach, and whether we do.

use crate::{
    report::{Results, mebibytes},
    row::{Row, Tenants},
    site::Store,
};

/// One target: what was measured, what it must be and what we aim for.
pub(crate) struct Target {
    pub(crate) what: String,
    pub(crate) measured: f64,
    pub(crate) must: f64,
    pub(crate) aim: f64,
    pub(crate) unit: &'static str,
    is_ceiling: bool,
}

impl Target {
    pub(crate) fn verdict(&self) -> &'static str {
        let holds = |limit: f64| match self.is_ceiling {
            true => self.measured <= limit,
            false => self.measured >= limit,
        };
        match (holds(self.must), holds(self.aim)) {
            (_, true) => "aim reached",
            (true, false) => "must reached",
            (false, false) => "**missed**",
        }
    }

    pub(crate) fn sign(&self) -> &'static str {
        if self.is_ceiling { "≤" } else { "≥" }
    }
}

/// The targets whose rows were measured.
pub(crate) fn targets(results: &Results) -> Vec<Target> {
    let mut found = Vec::new();
    let mut add = |what: String, measured: Option<f64>, [must, aim]: [f64; 2], unit, is_ceiling| {
        if let Some(measured) = measured {
            found.push(Target { what, measured, must, aim, unit, is_ceiling });
        }
    };
    let rate = |row: Row| results.median(row, |sample| sample.rate);
    for store in Store::ALL {
        let cpu = results.median(Row::Upload(store), |sample| sample.service.total());
        add(format!("service CPU per uploaded GiB, {}", store.name()), cpu, [1.2, 0.9], "s", true);
    }
    let upload = rate(Row::Upload(Store::Costless));
    add("1 GiB upload into a store that costs nothing".to_owned(), upload, [1.0, 1.4], "GiB/s", false);
    let download = rate(Row::Download(Store::Costless));
    add("1 GiB download from such a store".to_owned(), download, [1.5, 2.5], "GiB/s", false);
    let small = |store, clients, tenants| Row::Small { store, clients, tenants };
    add(
        "10 KiB uploads, local provider, 16 clients".to_owned(),
        rate(small(Store::Local, 16, Tenants::Many)),
        [1300.0, 2000.0],
        "/s",
        false,
    );
    add(
        "10 KiB uploads, one hot tenant, 64 clients, store that costs nothing".to_owned(),
        rate(small(Store::Costless, 64, Tenants::One)),
        [3000.0, 6000.0],
        "/s",
        false,
    );
    let peak = results.median(Row::Crowd, |sample| sample.peak_bytes.map_or(f64::NAN, mebibytes));
    add("resident memory, 64 uploads at once".to_owned(), peak, [640.0, 384.0], "MiB", true);
    found
}
