//! The disk baseline: write, sync, rename, sync the directory. This is the minimum cost of a small file as
//! one file on disk.

use std::{
    fs::{self, File},
    io::Write,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;

use crate::{
    Outcome,
    fixture::Fixture,
    meter::{Meter, Sample},
};

struct Writer {
    number: usize,
    from: PathBuf,
    to: PathBuf,
    content: Bytes,
    is_done: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
}

impl Writer {
    fn run(self) -> std::io::Result<()> {
        let directory = File::open(&self.to)?;
        for turn in 0_u64.. {
            if self.is_done.load(Ordering::Relaxed) {
                break;
            }
            let name = format!("{}-{turn}", self.number);
            let mut file = File::create(self.from.join(&name))?;
            file.write_all(&self.content)?;
            file.sync_all()?;
            fs::rename(self.from.join(&name), self.to.join(&name))?;
            directory.sync_all()?;
            self.written.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

#[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
pub(crate) async fn measure(fixture: &mut Fixture, threads: usize) -> Outcome<Sample> {
    // Keep the files until the end: some file systems delay later writes after files were deleted.
    let round = fixture.next_number();
    let (from, to) = (
        fixture.environment.path(&format!("fsync.new.{round}")),
        fixture.environment.path(&format!("fsync.{round}")),
    );
    fs::create_dir_all(&from)?;
    fs::create_dir_all(&to)?;
    let (is_done, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let meter = Meter::start(&fixture.environment, None, None);
    let writers: Vec<_> = (0..threads)
        .map(|number| {
            let writer = Writer {
                number,
                from: from.clone(),
                to: to.clone(),
                content: fixture.small.block().clone(),
                is_done: Arc::clone(&is_done),
                written: Arc::clone(&written),
            };
            tokio::task::spawn_blocking(move || writer.run())
        })
        .collect();
    tokio::time::sleep(fixture.window).await;
    let (used, count) = (meter.measure_usage(&fixture.environment), written.load(Ordering::Relaxed) as f64);
    is_done.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await??;
    }
    Ok(used.sample(count, count / 1000.0))
}
