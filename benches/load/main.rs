//! The load command: measures the throughput and the cost of the service, with baselines in the same run, and
//! compares the results with our targets.
//!
//! `scripts/load` builds it with optimization, starts durable servers, and runs it. Every round measures
//! every row once, in a different order; the report contains medians. The service is the real binary with its
//! default configuration, running as a separate process, with no features disabled. With `--compare`, every
//! row is measured with this build and another program alternately.

#![allow(clippy::print_stdout, reason = "the table is the output of this program")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a measurement stops at the first failure")]

mod client;
mod closed_loop;
mod commit_rows;
mod comparison;
#[allow(dead_code, reason = "the tests use all of it")]
#[path = "../../tests/e2e/database.rs"]
mod database;
mod direct;
mod environment;
mod fixture;
mod fsync;
mod garage;
#[allow(dead_code, reason = "the tests use all of it")]
#[path = "../../tests/e2e/identity.rs"]
mod identity;
mod large;
mod lists;
mod machine;
mod measure;
mod meter;
mod options;
mod pgbench;
mod process;
mod program;
mod report;
mod results;
mod row;
mod service;
mod small;
mod sql;
mod targets;

use std::process::ExitCode;

use self::{
    environment::Store,
    fixture::Fixture,
    options::{Options, Scale},
    program::Program,
    results::Results,
    row::Row,
};

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
    let rows = select_rows(options)?;
    if options.list {
        rows.iter().for_each(|row| println!("{}", row.name()));
        return Ok(());
    }
    let other = options.compare.as_deref().map(Program::to_compare);
    let programs: Vec<Program> = [Program::of_this_build()].into_iter().chain(other).collect();
    let mut fixtures = Vec::new();
    for program in &programs {
        eprintln!("starting the services of {}", program.path.display());
        fixtures.push(Fixture::start(options, &rows, program.clone()).await?);
    }
    let measured = measure_all(&mut fixtures, &rows, options).await;
    let machine = machine::describe(&fixtures[0]).await;
    for fixture in fixtures {
        fixture.close().await;
    }
    let measured = measured?;
    let (text, json) = match measured.as_slice() {
        [results] => (report::markdown(&machine, results, options), report::json(&machine, results)),
        [results, other] => {
            let versions = [programs[0].describe().await?, programs[1].describe().await?];
            let comparison = comparison::Comparison { versions: &versions, this: results, other };
            (comparison.markdown(&machine, options), comparison.json(&machine))
        }
        _ => return Err("nothing was measured".into()),
    };
    print!("{text}");
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_vec_pretty(&json)?)?;
    }
    Ok(())
}

/// Returns the rows that the options select.
fn select_rows(options: &Options) -> Outcome<Vec<Row>> {
    let is_compared = |row: &Row| options.compare.is_none() || !row.is_baseline();
    let rows = Row::all().into_iter().filter(|row| options.selects(&row.name()) && is_compared(row));
    let rows: Vec<Row> = rows.collect();
    if rows.is_empty() {
        return Err("no row name matches --only; --list shows all names".into());
    }
    if options.scale == Scale::Smoke {
        if !Store::all().contains(&Store::Garage) {
            return Err("there is no S3 server; run through scripts/with-garage".into());
        }
        return Ok(Row::first_of_each_kind(&rows));
    }
    Ok(rows)
}

/// Measures every row with every fixture. Returns the results of each fixture.
async fn measure_all(fixtures: &mut [Fixture], rows: &[Row], options: &Options) -> Outcome<Vec<Results>> {
    let mut results: Vec<Results> = fixtures.iter().map(|_| Results::new(rows)).collect();
    let rounds = options.rounds();
    for round in 0..rounds {
        // Use a different order each time, so that no row always runs at the same time or after the same row.
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.rotate_left(round * rows.len() / rounds);
        if round % 2 == 1 {
            order.reverse();
        }
        for (place, index) in order.into_iter().enumerate() {
            let row = rows[index];
            if round >= row.rounds_max() {
                continue;
            }
            for turn in 0..fixtures.len() {
                // Each program is the first one in every second round.
                let number = (round + place + turn) % fixtures.len();
                let sample = measure::measure(row, &mut fixtures[number], options).await?;
                let name = if number == 0 { "" } else { " (other program)" };
                eprintln!("[{}/{rounds}] {}{name}: {}", round + 1, row.name(), sample.summary(row.unit()));
                results[number].add(index, sample);
            }
        }
    }
    Ok(results)
}
