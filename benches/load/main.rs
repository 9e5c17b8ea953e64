//! The load command: measures the throughput and the cost of the service, with baselines in the same run, and
//! compares the results with our targets.
//!
//! `scripts/load` builds it with optimization, starts durable servers, and runs it. Every round measures
//! every row once, in a different order; the report contains medians. The service is the real binary with its
//! default configuration, running as a separate process, with no features disabled.

#![allow(clippy::print_stdout, reason = "the table is the output of this program")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a measurement stops at the first failure")]

mod client;
#[allow(dead_code, reason = "the tests use all of it")]
#[path = "../../tests/e2e/database.rs"]
mod database;
mod direct;
mod environment;
mod fixture;
mod fsync;
mod garage;
#[path = "../../tests/e2e/identity.rs"]
mod identity;
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
mod small;
mod sql;
mod targets;

use std::process::ExitCode;

use self::{fixture::Fixture, options::Options, results::Results, row::Row};

/// Errors are reported to the user and not handled otherwise.
type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => return ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}\n{}", options::HELP);
            return ExitCode::from(2);
        }
    };
    // Direct uploads to the store need a crypto provider, even over http. Only the first call in a process
    // installs it.
    let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let result = runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(run(&options)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Outcome<()> {
    let rows: Vec<Row> = Row::all().into_iter().filter(|row| options.selects(&row.name())).collect();
    if rows.is_empty() {
        return Err("no row name matches --only; --list shows all names".into());
    }
    if options.list {
        rows.iter().for_each(|row| println!("{}", row.name()));
        return Ok(());
    }
    eprintln!("starting the services");
    let mut fixture = Fixture::start(options, &rows).await?;
    let measured = measure_all(&mut fixture, &rows, options.rounds).await;
    let machine = machine::describe(&fixture).await;
    fixture.close().await;
    let results = measured?;
    print!("{}", report::markdown(&machine, &results, options));
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_vec_pretty(&report::json(&machine, &results))?)?;
    }
    Ok(())
}

async fn measure_all(fixture: &mut Fixture, rows: &[Row], rounds: usize) -> Outcome<Results> {
    let mut results = Results::new(rows);
    for round in 0..rounds {
        // Use a different order each time, so that no row always runs at the same time or after the same row.
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.rotate_left(round * rows.len() / rounds);
        if round % 2 == 1 {
            order.reverse();
        }
        for index in order {
            let row = &rows[index];
            if round >= row.rounds_max() {
                continue;
            }
            let sample =
                measure::measure(*row, fixture).await.map_err(|error| format!("{}: {error}", row.name()))?;
            eprintln!("[{}/{rounds}] {}: {}", round + 1, row.name(), sample.summary(row.unit()));
            results.add(index, sample);
        }
    }
    Ok(results)
}
