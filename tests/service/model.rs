//! The model test. It runs random operations of three tenants, with storage faults and server crashes among
//! them, and compares the service with an independent model in plain maps (`model/expected.rs`), which shares
//! no code with it.
//!
//! A seed determines every operation (`model/draw.rs`). Before an operation the model predicts its outcome:
//! success, or an error with a certain reason. After it the quota must equal that of the model: used and
//! reserved bytes, file count and usage counters. Occasionally, and at the end, the test compares every file,
//! version, byte and open upload (`model/check.rs`).
//!
//! # How to read a failure
//!
//! The seed follows the panic, with all operations of its sequence; the last one failed. The left side of an
//! assertion is what the service did, the right side what the model expects.
//!
//! | message | cause |
//! |---|---|
//! | a different reason | the check of that use case decided differently |
//! | `limit, used, files` | a wrong charge |
//! | `timed out after 60 s: reservations of …` | a reservation that is not released |
//! | `partial file`, `unexpected files` | a crashed call had a partial effect |
//! | `step does not end` | a call that hangs |
//!
//! The seed determines everything except the moment of a crash, so run a sequence with a crash several times.
//!
//! - `STRONGROOM_MODEL_SEED=n` runs sequence n alone, `STRONGROOM_MODEL_SEED=n..m` sequences n to m - 1.
//! - `STRONGROOM_TEST_FULL=1` runs ten times as many sequences.
//! - `STRONGROOM_MODEL_SEQUENCES=n` runs the first n sequences and overrides `STRONGROOM_TEST_FULL`.
//!
//! # How sensitive it is
//!
//! It found these bugs when they were added on purpose, after the given number of sequences: an upload of a
//! version that reserves a file (a few dozen), an undelete without a charge where the trash does not count
//! (ten), a resumed upload whose digest omits the bytes that were sent before (five), a deleted blob that
//! versions still use (the fsck after the block). Repeat the experiment when `model/draw.rs` changes.
//!
//! # Limits
//!
//! It does not cover direct uploads, imports, other categories, expiry, retention, holds, transfers of ownership, and
//! shares other than links. All members see all files, so a grant matters only if it permits the deletion. Operations run
//! one after the other; `change_order.rs` compares the events of concurrent batches with the final states.
//!
//! The sequences of a block share a database; each has tenants of its own. A block ends with the invariants
//! of every service test, which include fsck. Blocks run on their own threads, which the test only watches,
//! so that a hanging block also fails with its seed and operations.

mod calls;
mod check;
mod crash;
mod draw;
mod expected;
mod history;
mod instance;
mod rng;
mod sequence;
mod sharing;

use std::{
    collections::BTreeMap,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread,
};

use chrono::Duration;
use strongroom::{
    app::integrity::sweep::{SweepOptions, sweep_stores},
    worker,
};

use self::{
    history::History,
    instance::Instance,
    sequence::{Sequence, Tally},
};
use crate::harness::{Service, service_test_with};

const SEQUENCES: u64 = 200;
const SEQUENCES_FULL: u64 = 2_000;
const BLOCK_SIZE: u64 = 25;
/// The number of blocks that run at the same time, each with its own database.
const CONCURRENT_BLOCKS_MAX: usize = 2;
/// The interval between checks for hanging blocks.
const POLL_INTERVAL: std::time::Duration = std::time::Duration::from_secs(1);

/// The operations that must occur in the sequences, each at least [`KIND_COUNT_MIN`] times, with success or
/// an error.
const KINDS: &[&str] = &[
    "upload",
    "version",
    "create upload",
    "send",
    "finish",
    "finish after parts",
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
    "add credits",
    "deduct credits",
    "share",
    "revoke share",
    "grant",
    "revoke grant",
    "visit",
    "read",
    "retry",
    "reuse",
    "foreign",
    "round",
    "clock",
    "fault",
    "fault hit",
    "crash",
    "crash before response",
    "crash after response",
];
const KIND_COUNT_MIN: usize = 5;

/// Returns the organization of a tenant of a sequence. The third one (index 2) has the preset `education`.
fn organization(seed: u64, index: usize) -> String {
    format!("model-{seed}-{index}")
}

/// Runs sequences on one database, then advances the clock and runs the workers to clean up.
fn run_block(seeds: Range<u64>, history: &History) -> Tally {
    let schools: Vec<String> = seeds.clone().map(|seed| organization(seed, 2)).collect();
    let counted = Arc::new(Mutex::new(Tally::default()));
    let (history, result) = (history.clone(), Arc::clone(&counted));
    let configure = move |config: &mut strongroom::config::Config| {
        for school in schools {
            config.tenants.presets.insert(school, "education".to_owned());
        }
        // The sequences of a block span years, and the invariants check at the end that every version has its
        // event.
        config.retention.event_days = 3_650;
    };
    service_test_with(configure, move |s| async move {
        let mut tally = Tally::default();
        let mut server = Instance::start(&s).await;
        for seed in seeds.clone() {
            server = Sequence::start(&s, server, seed, &mut tally, &history).await.run().await;
        }
        history.restart(format!("after sequences {seeds:?}"), format!("{seeds:?}"));
        history.add_step("stop the server");
        server.stop().await;
        history.add_step("advance the clock and clean up");
        clean_up(&s).await;
        history.add_step("check the invariants");
        *result.lock().unwrap() = tally;
    });
    std::mem::take(&mut *counted.lock().unwrap())
}

/// Cleans up after crashes: uploads are abandoned when their lease expires, the sweep finds their objects
/// after the grace period and deletes them after a second one.
async fn clean_up(s: &Service) {
    for _ in 0..3 {
        s.clock.advance(Duration::hours(25));
        worker::run_round(&s.app).await;
        let options = SweepOptions { is_database_trusted: true, ..SweepOptions::from_config(&s.app) };
        for report in sweep_stores(&s.app, options).await.unwrap() {
            assert!(report.problems.is_empty(), "{:?}", report.problems);
        }
    }
}

fn seeds_from_environment() -> Range<u64> {
    let number = |text: &str| text.parse::<u64>().unwrap_or_else(|_| panic!("`{text}` is not a number"));
    if let Ok(seeds) = std::env::var("STRONGROOM_MODEL_SEED") {
        return match seeds.split_once("..") {
            Some((first, end)) => number(first)..number(end),
            None => number(&seeds)..number(&seeds) + 1,
        };
    }
    let is_full = std::env::var("STRONGROOM_TEST_FULL").is_ok();
    let count = match std::env::var("STRONGROOM_MODEL_SEQUENCES") {
        Ok(count) => number(&count),
        Err(_) if is_full => SEQUENCES_FULL,
        Err(_) => SEQUENCES,
    };
    1..1 + count
}

/// The result of a block, with its first seed.
type BlockResult = (u64, thread::Result<Tally>);

/// Runs a block on a new thread, which is never joined, and sends the result.
fn spawn_block(seeds: Range<u64>, results: Sender<BlockResult>) -> History {
    let (history, first) = (History::new(format!("{seeds:?}")), seeds.start);
    let history_of_block = history.clone();
    let work = move || {
        let outcome = catch_unwind(AssertUnwindSafe(|| run_block(seeds, &history_of_block)));
        // The receiver is dropped if another block has failed.
        let _ = results.send((first, outcome));
    };
    thread::Builder::new().name(format!("block {first}")).spawn(work).unwrap();
    history
}

/// Runs all blocks, several at a time. Panics with the history of the first block that fails or hangs.
fn run_blocks(seeds: Range<u64>) -> Tally {
    let (end, size) = (seeds.end, usize::try_from(BLOCK_SIZE).unwrap());
    let mut waiting = seeds.step_by(size).map(|first| first..end.min(first + BLOCK_SIZE));
    let (sender, results) = mpsc::channel();
    let (mut running, mut total) = (BTreeMap::new(), Tally::default());
    loop {
        while running.len() < CONCURRENT_BLOCKS_MAX
            && let Some(seeds) = waiting.next()
        {
            running.insert(seeds.start, spawn_block(seeds, sender.clone()));
        }
        if running.is_empty() {
            return total;
        }
        match results.recv_timeout(POLL_INTERVAL) {
            Ok((first, outcome)) => {
                let history = running.remove(&first).unwrap();
                total
                    .add(outcome.unwrap_or_else(|_| panic!("the service differs from the model: {history}")));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => unreachable!("`sender` is still in scope"),
        }
        for history in running.values() {
            assert!(!history.is_stuck(), "step does not end: {history}");
        }
    }
}

#[test]
fn service_agrees_with_model_after_random_operations() {
    let seeds = seeds_from_environment();
    let count = seeds.end - seeds.start;
    let total = run_blocks(seeds);
    println!("{count} sequences; successes and errors: {:?}", total.0);
    if count >= SEQUENCES {
        for kind in KINDS {
            let (successes, errors) = total.0.get(kind).copied().unwrap_or_default();
            let count = successes + errors;
            assert!(count >= KIND_COUNT_MIN, "`{kind}` occurred {count} times, expected {KIND_COUNT_MIN}");
        }
    }
}
