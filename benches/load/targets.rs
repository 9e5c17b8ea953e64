//! The targets and the verdict on each.

use crate::{
    environment::Store,
    lists::{Depth, Order, PageRow, Viewer},
    meter::Sample,
    results::{Results, mebibytes},
    row::{Row, Signing, Tenants},
};

/// A target: the measured value, the required value and the goal.
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) measured: f64,
    pub(crate) required: f64,
    pub(crate) goal: f64,
    pub(crate) unit: &'static str,
    is_ceiling: bool,
}

impl Target {
    pub(crate) fn verdict(&self) -> &'static str {
        let holds = |limit: f64| match self.is_ceiling {
            true => self.measured <= limit,
            false => self.measured >= limit,
        };
        match (holds(self.required), holds(self.goal)) {
            (_, true) => "goal reached",
            (true, false) => "requirement met",
            (false, false) => "**missed**",
        }
    }

    pub(crate) fn sign(&self) -> &'static str {
        if self.is_ceiling { "≤" } else { "≥" }
    }
}

/// Returns the targets whose rows were measured.
pub(crate) fn targets(results: &Results) -> Vec<Target> {
    let mut found = Vec::new();
    let mut add = |name: String, measured: Option<f64>, [required, goal]: [f64; 2], unit, is_ceiling| {
        if let Some(measured) = measured {
            found.push(Target { name, measured, required, goal, unit, is_ceiling });
        }
    };
    let rate = |row: Row| results.median(row, |sample| sample.rate);
    for store in Store::all() {
        let cpu = results.median(Row::Upload(store), |sample| sample.service.total());
        add(format!("service CPU per uploaded GiB, {}", store.name()), cpu, [1.2, 0.9], "s", true);
    }
    add_direct_comparison(results, &mut add);
    let upload = rate(Row::Upload(Store::Discard));
    add("1 GiB upload, discard store".to_owned(), upload, [1.0, 1.4], "GiB/s", false);
    let download = rate(Row::Download(Store::Discard));
    add("1 GiB download, discard store".to_owned(), download, [1.5, 2.5], "GiB/s", false);
    let small = |store, clients, tenants| Row::Small { store, clients, tenants };
    for (tenants_name, tenants) in [("64 tenants", Tenants::Many), ("one tenant", Tenants::One)] {
        let measured = rate(small(Store::Local, 16, tenants));
        let name = format!("10 KiB uploads, local provider, 16 clients, {tenants_name}");
        add(name, measured, [1300.0, 2000.0], "/s", false);
    }
    add(
        "10 KiB uploads, one hot tenant, 64 clients, discard store".to_owned(),
        rate(small(Store::Discard, 64, Tenants::One)),
        [3000.0, 6000.0],
        "/s",
        false,
    );
    for order in [Order::Newest, Order::Name] {
        let page = PageRow { order, viewer: Viewer::Member, depth: Depth::Middle, clients: 1 };
        let latency = |sample: &Sample| sample.latency.map_or(f64::NAN, |latency| latency.p50);
        let name = format!("page of 100 files, {}, middle page, p50", order.name());
        add(name, results.median(Row::List(page), latency), [0.8, 0.5], "ms", true);
    }
    let peak = results.median(Row::ConcurrentUploads, |sample| sample.peak_bytes.map_or(f64::NAN, mebibytes));
    add("resident memory, 64 concurrent uploads".to_owned(), peak, [640.0, 384.0], "MiB", true);
    found
}

type Add<'a> = dyn FnMut(String, Option<f64>, [f64; 2], &'static str, bool) + 'a;

/// Compares the upload to the S3 server with direct uploads, and with the theoretical limit if the server and
/// the service share the cores. Per GiB, the server needs G seconds of CPU time; a client that sends without
/// signing needs 0.24 s, and one that also receives and hashes every byte needs 0.92 s.
fn add_direct_comparison(results: &Results, add: &mut Add<'_>) {
    let rate = |row: Row| results.median(row, |sample| sample.rate);
    let Some(ours) = rate(Row::Upload(Store::Garage)) else { return };
    let relative_rate = |signing| rate(Row::Direct(signing)).map(|direct| ours / direct);
    let unsigned = relative_rate(Signing::Headers);
    add(
        "1 GiB upload relative to direct upload, signed".to_owned(),
        relative_rate(Signing::Payload),
        [0.9, 1.0],
        "×",
        false,
    );
    add("1 GiB upload relative to direct upload, unsigned".to_owned(), unsigned, [0.75, 0.85], "×", false);
    let store = results.median(Row::Direct(Signing::Headers), |sample| sample.store.total());
    if let Some(store) = store.filter(|store| *store > 0.0) {
        let limit = (store + 0.24) / (store + 0.92);
        let name =
            format!("… relative to the limit (G + 0.24) / (G + 0.92) = {limit:.2} with G = {store:.2} s");
        add(name, unsigned.map(|unsigned| unsigned / limit), [0.85, 0.95], "×", false);
    }
}
