//! The disk alone: write, sync, rename, sync the directory. What a small file costs at the least, where it is one file.

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
    lab::Lab,
    meter::{Meter, Sample},
};

struct Writer {
    number: usize,
    from: PathBuf,
    to: PathBuf,
    content: Bytes,
    is_over: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
}

impl Writer {
    fn run(self) -> std::io::Result<()> {
        let directory = File::open(&self.to)?;
        for turn in 0_u64.. {
            if self.is_over.load(Ordering::Relaxed) {
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
pub(crate) async fn run(lab: &mut Lab, threads: usize) -> Outcome<Sample> {
    // They stay until the end: a file system may pass over what was deleted lately, at the cost of who writes next.
    let round = lab.next_number();
    let (from, to) = (lab.site.path(&format!("fsync.new.{round}")), lab.site.path(&format!("fsync.{round}")));
    fs::create_dir_all(&from)?;
    fs::create_dir_all(&to)?;
    let (is_over, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let meter = Meter::start(&lab.site, None, None);
    let writers: Vec<_> = (0..threads)
        .map(|number| {
            let writer = Writer {
                number,
                from: from.clone(),
                to: to.clone(),
                content: lab.small.block().clone(),
                is_over: Arc::clone(&is_over),
                written: Arc::clone(&written),
            };
            tokio::task::spawn_blocking(move || writer.run())
        })
        .collect();
    tokio::time::sleep(lab.window).await;
    let (used, count) = (meter.pause(&lab.site), written.load(Ordering::Relaxed) as f64);
    is_over.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await??;
    }
    Ok(used.sample(count, count / 1000.0))
}
