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

/// How callers share a resource.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SharesState {
    /// All units of the resource.
    pub capacity: u64,
    /// Units in use.
    pub in_use: u64,
    /// Callers that wait for units.
    pub waiting: u64,
    /// Requests for units that failed because of the share of the caller.
    pub refused_caller: u64,
    /// Requests for units that failed because of the share of the tenant or address.
    pub refused_tenant: u64,
    /// Requests for units that failed because all units were in use.
    pub refused_process: u64,
}

/// The connections of a port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PeersState {
    pub open: u64,
    /// Connections that were closed to make room.
    pub closed_for_room: u64,
    /// Connections that were rejected because of the limit per address.
    pub refused: u64,
}

/// The circuit breaker of a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerLevel {
    /// The name of the provider, from the configuration.
    pub provider: String,
    /// 0: closed, 1: half open, 2: open.
    pub level: u64,
}

type ReadFn<T> = Box<dyn Fn() -> T + Send + Sync>;

#[derive(Default)]
struct Readers {
    byte_budget: Option<ReadFn<u64>>,
    breakers: Option<ReadFn<Vec<BreakerLevel>>>,
    pools: Vec<(&'static str, ReadFn<PoolState>)>,
    shares: Vec<(&'static str, ReadFn<SharesState>)>,
    peers: Vec<(&'static str, ReadFn<PeersState>)>,
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
        observables.observe_breakers(meter);
        observables.observe_shares(meter);
        observables.observe_peers(meter);
        observables
    }

    fn observe_breakers(&self, meter: &Meter) {
        let readers = self.clone();
        meter
            .u64_observable_gauge("strongroom.storage.breaker_state")
            .with_description(
                "Circuit breakers of background work, by provider: 0 closed, 1 half open, 2 open",
            )
            .with_callback(move |observer| {
                let levels = readers.read(|readers| readers.breakers.as_ref().map(|read| read()));
                for BreakerLevel { provider, level } in levels.unwrap_or_default() {
                    observer.observe(level, &[KeyValue::new("provider", provider)]);
                }
            })
            .build();
    }

    fn observe_shares(&self, meter: &Meter) {
        type Gauge = (&'static str, &'static str, fn(&SharesState) -> u64);
        let gauges: [Gauge; 3] = [
            ("strongroom.shares.capacity", "Units of a shared resource", |state| state.capacity),
            ("strongroom.shares.in_use", "Units in use, by resource", |state| state.in_use),
            ("strongroom.shares.waiting", "Callers that wait for units, by resource", |state| state.waiting),
        ];
        for (name, description, value) in gauges {
            let readers = self.clone();
            let gauge = meter.u64_observable_gauge(name).with_description(description);
            gauge
                .with_callback(move |observer| {
                    readers.read(|readers| {
                        for (resource, read) in &readers.shares {
                            observer.observe(value(&read()), &[KeyValue::new("resource", *resource)]);
                        }
                    });
                })
                .build();
        }
        let readers = self.clone();
        meter
            .u64_observable_counter("strongroom.shares.refusals")
            .with_description("Refusals because of a share, by resource and by whose share was used up")
            .with_callback(move |observer| {
                readers.read(|readers| {
                    for (resource, read) in &readers.shares {
                        let state = read();
                        for (of, count) in [
                            ("caller", state.refused_caller),
                            ("tenant", state.refused_tenant),
                            ("process", state.refused_process),
                        ] {
                            let labels = [KeyValue::new("resource", *resource), KeyValue::new("of", of)];
                            observer.observe(count, &labels);
                        }
                    }
                });
            })
            .build();
    }

    fn observe_peers(&self, meter: &Meter) {
        let readers = self.clone();
        meter
            .u64_observable_gauge("strongroom.connections")
            .with_description("Open connections, by port")
            .with_callback(move |observer| {
                readers.read(|readers| {
                    for (port, read) in &readers.peers {
                        observer.observe(read().open, &[KeyValue::new("port", *port)]);
                    }
                });
            })
            .build();
        let readers = self.clone();
        meter
            .u64_observable_counter("strongroom.connections.closed")
            .with_description("Connections closed to make room, or refused at the limit per address")
            .with_callback(move |observer| {
                readers.read(|readers| {
                    for (port, read) in &readers.peers {
                        let state = read();
                        for (reason, count) in [("room", state.closed_for_room), ("address", state.refused)] {
                            let labels = [KeyValue::new("port", *port), KeyValue::new("reason", reason)];
                            observer.observe(count, &labels);
                        }
                    }
                });
            })
            .build();
    }

    pub(super) fn add_shares(&self, resource: &'static str, read: ReadFn<SharesState>) {
        self.write(|readers| readers.shares.push((resource, read)));
    }

    pub(super) fn add_peers(&self, port: &'static str, read: ReadFn<PeersState>) {
        self.write(|readers| readers.peers.push((port, read)));
    }

    pub(super) fn set_breakers(&self, read: ReadFn<Vec<BreakerLevel>>) {
        self.write(|readers| readers.breakers = Some(read));
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
