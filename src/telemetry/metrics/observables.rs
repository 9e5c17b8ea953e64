//! Observable gauges: values that are read when metrics are collected.

use std::sync::{Arc, PoisonError, RwLock};

use opentelemetry::{KeyValue, metrics::Meter};

/// The state of a database connection pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolState {
    /// Connections in use.
    pub in_use: u64,
    pub idle: u64,
    /// Requests that wait for a connection.
    pub waiting: u64,
}

type ReadFn<T> = Box<dyn Fn() -> T + Send + Sync>;

#[derive(Default)]
struct Readers {
    byte_budget: Option<ReadFn<u64>>,
    pools: Vec<(&'static str, ReadFn<PoolState>)>,
}

impl Readers {
    fn for_each_pool(&self, mut observe: impl FnMut(KeyValue, PoolState)) {
        for (pool, read) in &self.pools {
            observe(KeyValue::new("pool", *pool), read());
        }
    }
}

/// The functions that return the values. The instruments are created once; functions are registered as
/// components start.
#[derive(Clone, Default)]
pub(super) struct Observables(Arc<RwLock<Readers>>);

impl Observables {
    pub(super) fn new(meter: &Meter) -> Self {
        let observables = Self::default();
        let readers = observables.clone();
        meter
            .u64_observable_gauge("strongroom.byte_budget.used")
            .with_unit("By")
            .with_description("Buffers of uploads in use")
            .with_callback(move |observer| {
                let used = readers.read(|readers| readers.byte_budget.as_ref().map(|read| read()));
                if let Some(used) = used {
                    observer.observe(used, &[]);
                }
            })
            .build();
        let readers = observables.clone();
        meter
            .u64_observable_gauge("strongroom.db.pool.connections")
            .with_description("Connections to the database, by pool and state")
            .with_callback(move |observer| {
                let observe = |pool: KeyValue, state: PoolState| {
                    observer.observe(state.in_use, &[pool.clone(), KeyValue::new("state", "in_use")]);
                    observer.observe(state.idle, &[pool, KeyValue::new("state", "idle")]);
                };
                readers.read(|readers| readers.for_each_pool(observe));
            })
            .build();
        let readers = observables.clone();
        meter
            .u64_observable_gauge("strongroom.db.pool.waiting")
            .with_description("Requests that wait for a connection, by pool")
            .with_callback(move |observer| {
                let observe = |pool, state: PoolState| observer.observe(state.waiting, &[pool]);
                readers.read(|readers| readers.for_each_pool(observe));
            })
            .build();
        observables
    }

    pub(super) fn set_byte_budget(&self, read: ReadFn<u64>) {
        self.write(|readers| readers.byte_budget = Some(read));
    }

    pub(super) fn add_pool(&self, pool: &'static str, read: ReadFn<PoolState>) {
        self.write(|readers| readers.pools.push((pool, read)));
    }

    /// Calls `act` with the registered functions. A function that panics does not change the list, so a
    /// poisoned lock is still usable.
    fn read<T>(&self, act: impl FnOnce(&Readers) -> T) -> T {
        act(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self, act: impl FnOnce(&mut Readers)) {
        act(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }
}
