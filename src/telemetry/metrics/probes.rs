//! Values that are read when metrics are collected, instead of being kept up to date all the time.

use std::sync::{Arc, PoisonError, RwLock};

use opentelemetry::{KeyValue, metrics::Meter};

/// The state of a database pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolState {
    /// Connections that someone is using.
    pub in_use: u64,
    /// Connections that wait for work.
    pub idle: u64,
    /// Requests that wait for a connection.
    pub waiting: u64,
}

type Read<T> = Box<dyn Fn() -> T + Send + Sync>;

#[derive(Default)]
struct Sources {
    byte_budget: Option<Read<u64>>,
    pools: Vec<(&'static str, Read<PoolState>)>,
}

impl Sources {
    fn each_pool(&self, mut observe: impl FnMut(KeyValue, PoolState)) {
        for (pool, read) in &self.pools {
            observe(KeyValue::new("pool", *pool), read());
        }
    }
}

/// Where such values are read from. The instruments are made once; sources are added as the parts come up.
#[derive(Clone, Default)]
pub(super) struct Probes(Arc<RwLock<Sources>>);

impl Probes {
    pub(super) fn new(meter: &Meter) -> Self {
        let probes = Self::default();
        let sources = probes.clone();
        meter
            .u64_observable_gauge("strongroom.byte_budget.used")
            .with_unit("By")
            .with_description("Buffers of uploads in use")
            .with_callback(move |observer| {
                let used = sources.read(|sources| sources.byte_budget.as_ref().map(|read| read()));
                if let Some(used) = used {
                    observer.observe(used, &[]);
                }
            })
            .build();
        let sources = probes.clone();
        meter
            .u64_observable_gauge("strongroom.db.pool.connections")
            .with_description("Connections to the database, by pool and state")
            .with_callback(move |observer| {
                let observe = |pool: KeyValue, state: PoolState| {
                    observer.observe(state.in_use, &[pool.clone(), KeyValue::new("state", "in_use")]);
                    observer.observe(state.idle, &[pool, KeyValue::new("state", "idle")]);
                };
                sources.read(|sources| sources.each_pool(observe));
            })
            .build();
        let sources = probes.clone();
        meter
            .u64_observable_gauge("strongroom.db.pool.waiting")
            .with_description("Requests that wait for a connection, by pool")
            .with_callback(move |observer| {
                let observe = |pool, state: PoolState| observer.observe(state.waiting, &[pool]);
                sources.read(|sources| sources.each_pool(observe));
            })
            .build();
        probes
    }

    pub(super) fn set_byte_budget(&self, read: Read<u64>) {
        self.write(|sources| sources.byte_budget = Some(read));
    }

    pub(super) fn add_pool(&self, pool: &'static str, read: Read<PoolState>) {
        self.write(|sources| sources.pools.push((pool, read)));
    }

    /// A source that panicked leaves the list as whole as it was, so a poisoned lock is still good.
    fn read<T>(&self, act: impl FnOnce(&Sources) -> T) -> T {
        act(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self, act: impl FnOnce(&mut Sources)) {
        act(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }
}
