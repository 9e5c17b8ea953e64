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
//! crash did not do its call whole or not at all; `does not end` that somebody waits for what never comes. All but the
//! moment in which a server dies follows from the seed; when a crash is among the operations, run it a few times.
//!
//! - `STRONGROOM_MODEL_SEED=n` runs sequence n alone, `STRONGROOM_MODEL_SEED=n..m` those from n up to and without m.
//! - `STRONGROOM_TEST_FULL=1` runs ten times as many sequences.
//! - `STRONGROOM_MODEL_SEQUENCES=n` runs the first n, whatever else is said of their number.
//!
//! **What it has found when it was planted.** A place for a file reserved for an upload of a version (in a few dozen sequences);
//! an undelete that does not charge where the trash does not count (ten); a resumed upload whose digest forgets what was sent
//! before (five); a blob let go that versions still stand on (the end of its block, by fsck). Plant one anew when the draws change.
//!
//! **What it does not know**: direct uploads, imports, other categories, expiry, retention, holds, transfers of ownership.
//!
//! A block of sequences shares one database, each sequence has tenants of its own, and each block ends with the invariants
//! of every service test, fsck among them. Blocks run on threads of their own and the test only watches them, so that one
//! that hangs, whoever is to blame, is a failure with its seed and its operations like any other.

mod books;
mod calls;
mod check;
mod crash;
mod dice;
mod draw;
mod instance;
mod run;
mod story;

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
    instance::Instance,
    run::{Run, Tally},
    story::Story,
};
use crate::harness::{Service, service_test_with};

const SEQUENCES: u64 = 200;
const SEQUENCES_FULL: u64 = 2_000;
const BLOCK: u64 = 25;
/// Blocks that run at once, each with a database of its own.
const BLOCKS_AT_ONCE: usize = 2;
/// How often it is looked whether a block hangs.
const LOOK: std::time::Duration = std::time::Duration::from_secs(1);

/// What must come up in the sequences, each this often at least, done or refused.
const KINDS: &[&str] = &[
    "upload",
    "version",
    "create upload",
    "send",
    "finish",
    "finish behind parts",
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
fn block(seeds: Range<u64>, story: &Story) -> Tally {
    let schools: Vec<String> = seeds.clone().map(|seed| organization(seed, 2)).collect();
    let counted = Arc::new(Mutex::new(Tally::default()));
    let (story, result) = (story.clone(), Arc::clone(&counted));
    let configure = move |config: &mut strongroom::config::Config| {
        for school in schools {
            config.tenants.presets.insert(school, "education".to_owned());
        }
        // The sequences of a block live through years; that every version has its event is checked at the end.
        config.retention.event_days = 3_650;
    };
    service_test_with(configure, move |s| async move {
        let mut tally = Tally::default();
        let mut working = Instance::start(&s).await;
        for seed in seeds.clone() {
            working = Run::begin(&s, working, seed, (&mut tally, &story)).await.run().await;
        }
        story.begin(format!("what {seeds:?} left"), format!("{seeds:?}"));
        story.step("the server stops");
        working.stop().await;
        story.step("time passes, and the workers clean up");
        clean_up(&s).await;
        story.step("the invariants of every test");
        *result.lock().unwrap() = tally;
    });
    std::mem::take(&mut *counted.lock().unwrap())
}

/// What crashes left is given up when its lease runs out, found after the grace period, and removed after another.
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

fn sequences() -> Range<u64> {
    let number = |text: &str| text.parse::<u64>().unwrap_or_else(|_| panic!("`{text}` is no number"));
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

type Ended = (u64, thread::Result<Tally>);

/// Runs a block on a thread of its own, which nobody has to wait for; tells how it ended under its first seed.
fn start(seeds: Range<u64>, ended: Sender<Ended>) -> Story {
    let (story, first) = (Story::new(format!("{seeds:?}")), seeds.start);
    let told = story.clone();
    let work = move || {
        let outcome = catch_unwind(AssertUnwindSafe(|| block(seeds, &told)));
        // Where another block has failed, nobody listens any more.
        let _ = ended.send((first, outcome));
    };
    thread::Builder::new().name(format!("the block from {first} on")).spawn(work).unwrap();
    story
}

/// Runs all blocks, some at once. The first that fails, or that does not end, is told with its story and ends the test.
fn run(seeds: Range<u64>) -> Tally {
    let (end, size) = (seeds.end, usize::try_from(BLOCK).unwrap());
    let mut waiting = seeds.step_by(size).map(|first| first..end.min(first + BLOCK));
    let (ended, endings) = mpsc::channel();
    let (mut running, mut total) = (BTreeMap::new(), Tally::default());
    loop {
        while running.len() < BLOCKS_AT_ONCE
            && let Some(seeds) = waiting.next()
        {
            running.insert(seeds.start, start(seeds, ended.clone()));
        }
        if running.is_empty() {
            return total;
        }
        match endings.recv_timeout(LOOK) {
            Ok((first, outcome)) => {
                let story = running.remove(&first).unwrap();
                total.add(outcome.unwrap_or_else(|_| panic!("the model and the service differ: {story}")));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => unreachable!("there is always a sender"),
        }
        for story in running.values() {
            assert!(!story.is_stuck(), "it does not end: {story}");
        }
    }
}

#[test]
fn whatever_three_tenants_do_the_service_has_what_the_model_has() {
    let seeds = sequences();
    let count = seeds.end - seeds.start;
    let total = run(seeds);
    println!("{count} sequences; done and refused: {:?}", total.0);
    if count >= SEQUENCES {
        for kind in KINDS {
            let (done, refused) = total.0.get(kind).copied().unwrap_or_default();
            assert!(done + refused >= EACH_AT_LEAST, "{kind} came {} times", done + refused);
        }
    }
}
