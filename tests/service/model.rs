//! The model test: random operations of three tenants, with a store that fails and servers that die among them, against an
//! independent model in plain maps (`model/books.rs`), which shares no code with the service.
//!
//! Every operation is drawn from a seed (`model/draw.rs`). Before it is done the model says what must come of it: done, or
//! refused for this reason. After it the books must be those of the model: used and reserved bytes, file count, usage
//! counters. At times, and at the end, every file, version, byte and open upload is compared (`model/check.rs`).
//!
//! **How to read a failure.** Below the panic stand the seed and all operations of its sequence up to the one that failed,
//! which is the last. An assertion's left side is what the service did, its right side what the model expects: a wrong
//! reason means that the guard of that use case decided otherwise; `limit, used, files` that the charge is wrong; `never:
//! reservations of …` that something is held which nobody gives back; `half a file` and `files that nobody asked for` that a
//! crash did not do its call whole or not at all. `STRONGROOM_MODEL_SEED=n` runs that sequence alone. All but the moment in
//! which a server dies follows from the seed; when a crash is among the operations, run it a few times.
//!
//! `STRONGROOM_TEST_FULL=1` runs ten times as many sequences. A block of sequences shares one database, each sequence has
//! tenants of its own, and each block ends with the invariants of every service test, fsck among them.

mod books;
mod calls;
mod check;
mod crash;
mod dice;
mod draw;
mod instance;
mod run;

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use chrono::Duration;
use strongroom::{
    app::integrity::sweep::{SweepOptions, sweep},
    worker,
};

use self::{
    instance::Instance,
    run::{Run, Tally},
};
use crate::harness::{Service, service_test_with};

const SEQUENCES: u64 = 200;
const SEQUENCES_FULL: u64 = 2_000;
const BLOCK: u64 = 25;
/// Blocks that run at once, each with a database of its own.
const BLOCKS_AT_ONCE: usize = 2;

/// What must come up in the sequences, each this often at least, done or refused.
const KINDS: &[&str] = &[
    "upload",
    "version",
    "create upload",
    "send",
    "finish",
    "cancel",
    "delete",
    "undelete",
    "purge",
    "batch delete",
    "archive",
    "unarchive",
    "rename",
    "restore version",
    "delete version",
    "copy",
    "limit",
    "read",
    "retry",
    "reuse",
    "foreign",
    "round",
    "clock",
    "fault",
    "fault that was met",
    "crash",
    "crash before the answer",
    "crash after the answer",
];
const EACH_AT_LEAST: usize = 5;

/// The organisation of a sequence; the third has the policy of a school.
fn organization(seed: u64, place: usize) -> String {
    format!("model-{seed}-{place}")
}

/// Runs these sequences over one database, and then lets time and the workers clean up.
fn block(seeds: std::ops::Range<u64>) -> Tally {
    let schools: Vec<String> = seeds.clone().map(|seed| organization(seed, 2)).collect();
    let (tally, told) = (Tally::default(), Mutex::new(Tally::default()));
    let told = std::sync::Arc::new(told);
    let result = told.clone();
    let configure = move |config: &mut strongroom::config::Config| {
        for school in schools {
            config.tenants.presets.insert(school, "education".to_owned());
        }
        // The sequences of a block live through years; that every version has its event is checked at the end.
        config.retention.event_days = 3_650;
    };
    service_test_with(configure, move |s| async move {
        let mut tally = tally;
        let mut working = Instance::start(&s).await;
        for seed in seeds {
            working = Run::begin(&s, working, seed, &mut tally).await.run().await;
        }
        working.stop().await;
        clean_up(&s).await;
        *told.lock().unwrap() = tally;
    });
    let mut told = result.lock().unwrap();
    std::mem::take(&mut *told)
}

/// What crashes left is given up when its lease runs out, found after the grace period, and removed after another.
async fn clean_up(s: &Service) {
    for _ in 0..3 {
        s.clock.advance(Duration::hours(25));
        worker::round(&s.app).await;
        let options = SweepOptions { is_database_trusted: true, ..SweepOptions::configured(&s.app) };
        for report in sweep(&s.app, options).await.unwrap() {
            assert!(report.problems.is_empty(), "{:?}", report.problems);
        }
    }
}

fn sequences() -> std::ops::Range<u64> {
    if let Ok(seed) = std::env::var("STRONGROOM_MODEL_SEED") {
        let seed = seed.parse().expect("STRONGROOM_MODEL_SEED is the number of a sequence");
        return seed..seed + 1;
    }
    let is_full = std::env::var("STRONGROOM_TEST_FULL").is_ok();
    1..1 + if is_full { SEQUENCES_FULL } else { SEQUENCES }
}

#[test]
fn whatever_three_tenants_do_the_service_has_what_the_model_has() {
    let seeds = sequences();
    let next = AtomicU64::new(seeds.start);
    let total: Mutex<BTreeMap<&str, (usize, usize)>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..BLOCKS_AT_ONCE {
            scope.spawn(|| {
                loop {
                    let first = next.fetch_add(BLOCK, Ordering::Relaxed);
                    if first >= seeds.end {
                        return;
                    }
                    for (kind, (done, refused)) in block(first..seeds.end.min(first + BLOCK)).0 {
                        let mut total = total.lock().unwrap();
                        let sum = total.entry(kind).or_default();
                        *sum = (sum.0 + done, sum.1 + refused);
                    }
                }
            });
        }
    });
    let total = total.into_inner().unwrap();
    println!("{} sequences; done and refused: {total:?}", seeds.end - seeds.start);
    if seeds.end - seeds.start >= SEQUENCES {
        for kind in KINDS {
            let (done, refused) = total.get(kind).copied().unwrap_or_default();
            assert!(done + refused >= EACH_AT_LEAST, "{kind} came {} times", done + refused);
        }
    }
}
