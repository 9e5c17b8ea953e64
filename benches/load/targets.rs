//! What we want to reach, and whether we do.

use crate::{
    results::{Results, mebibytes},
    row::{Row, Signing, Tenants},
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
    for store in Store::all() {
        let cpu = results.median(Row::Upload(store), |sample| sample.service.total());
        add(format!("service CPU per uploaded GiB, {}", store.name()), cpu, [1.2, 0.9], "s", true);
    }
    beside_direct(results, &mut add);
    let upload = rate(Row::Upload(Store::Costless));
    add("1 GiB upload into a store that costs nothing".to_owned(), upload, [1.0, 1.4], "GiB/s", false);
    let download = rate(Row::Download(Store::Costless));
    add("1 GiB download from such a store".to_owned(), download, [1.5, 2.5], "GiB/s", false);
    let small = |store, clients, tenants| Row::Small { store, clients, tenants };
    for (whose, tenants) in [("64 tenants", Tenants::Many), ("one tenant", Tenants::One)] {
        let measured = rate(small(Store::Local, 16, tenants));
        let what = format!("10 KiB uploads, local provider, 16 clients, {whose}");
        add(what, measured, [1300.0, 2000.0], "/s", false);
    }
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

type Add<'a> = dyn FnMut(String, Option<f64>, [f64; 2], &'static str, bool) + 'a;

/// The upload into the S3 server beside those without a service, and beside what is possible where server and service
/// share the cores: per GiB the server needs G seconds of CPU and an unsigned client 0.24; whoever also receives and hashes
/// every byte needs 0.92.
fn beside_direct(results: &Results, add: &mut Add<'_>) {
    let rate = |row: Row| results.median(row, |sample| sample.rate);
    let Some(ours) = rate(Row::Upload(Store::Garage)) else { return };
    let beside = |signing| rate(Row::Direct(signing)).map(|direct| ours / direct);
    let unsigned = beside(Signing::Headers);
    add("1 GiB upload beside direct, signed".to_owned(), beside(Signing::Payload), [0.9, 1.0], "×", false);
    add("1 GiB upload beside direct, unsigned".to_owned(), unsigned, [0.75, 0.85], "×", false);
    let store = results.median(Row::Direct(Signing::Headers), |sample| sample.store.total());
    if let Some(store) = store.filter(|store| *store > 0.0) {
        let limit = (store + 0.24) / (store + 0.92);
        let what = format!("… of the limit (G + 0.24) / (G + 0.92) = {limit:.2} with G = {store:.2} s");
        add(what, unsigned.map(|unsigned| unsigned / limit), [0.85, 0.95], "×", false);
    }
}
