//! The load command: what the service costs and how fast it is, beside baselines in the same run, against our targets.
//!
//! `scripts/load` builds it with optimisation, gives it servers that are durable, and runs it. Every round measures
//! every row once, each round in another order; what is printed are medians. Nothing is switched off to look better: the
//! service is the real binary with its default configuration, as a process of its own.

#![allow(clippy::print_stdout, reason = "the table is what this program is for")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a measurement stops at the first surprise")]

#[allow(dead_code, reason = "the tests use all of it")]
#[path = "../../tests/e2e/database.rs"]
mod database;
mod direct;
mod fsync;
mod garage;
#[path = "../../tests/e2e/identity.rs"]
mod identity;
mod lab;
mod large;
mod machine;
mod measure;
mod meter;
mod options;
mod pgbench;
mod process;
mod report;
mod results;
mod row;
mod service;
mod site;
mod small;
mod sql;
mod targets;
mod wire;

use std::process::ExitCode;

use self::{lab::Lab, options::Options, results::Results, row::Row};

/// What can go wrong is told to whoever runs this, and nothing else is done about it.
type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> ExitCode {
    let options = match Options::read(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => return ExitCode::SUCCESS,
        Err(wrong) => {
            eprintln!("error: {wrong}\n{}", options::HELP);
            return ExitCode::from(2);
        }
    };
    // What uploads straight into the store asks for one, also over http. Only the first call in a process installs it.
    let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let ran = runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(run(&options)));
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Outcome<()> {
    let rows: Vec<Row> = Row::all().into_iter().filter(|row| options.wants(&row.name())).collect();
    if rows.is_empty() {
        return Err("no row has such a name; --list shows them".into());
    }
    if options.list {
        rows.iter().for_each(|row| println!("{}", row.name()));
        return Ok(());
    }
    eprintln!("starting the services");
    let mut lab = Lab::start(options, &rows).await?;
    let measured = measure_all(&mut lab, &rows, options.rounds).await;
    let machine = machine::describe(&lab).await;
    lab.close().await;
    let results = measured?;
    print!("{}", report::markdown(&machine, &results, options));
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_vec_pretty(&report::json(&machine, &results))?)?;
    }
    Ok(())
}

async fn measure_all(lab: &mut Lab, rows: &[Row], rounds: usize) -> Outcome<Results> {
    let mut results = Results::new(rows);
    for round in 0..rounds {
        // Another order each time, so that no row always runs at the same moment or behind the same neighbour.
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.rotate_left(round * rows.len() / rounds);
        if round % 2 == 1 {
            order.reverse();
        }
        for place in order {
            let row = &rows[place];
            if round >= row.rounds_max() {
                continue;
            }
            let sample =
                measure::measure(*row, lab).await.map_err(|error| format!("{}: {error}", row.name()))?;
            eprintln!("[{}/{rounds}] {}: {}", round + 1, row.name(), sample.in_short(row.unit()));
            results.add(place, sample);
        }
    }
    Ok(results)
}
