//! Runs `strongroom serve`, the real binary, as a separate process.

use std::{
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use crate::{Outcome, program::Program};

/// A running service. It is killed when dropped.
pub(crate) struct Service {
    pub(crate) grpc: String,
    child: Child,
}

impl Service {
    /// Starts the service and waits until it listens. `settings` are configuration keys, such as
    /// `storage.provider`.
    pub(crate) async fn start<'a>(
        program: &Program,
        log: PathBuf,
        settings: impl Iterator<Item = (&'a str, String)>,
    ) -> Outcome<Self> {
        let mut command = program.command(settings);
        command.args(["serve", "--with-worker"]).stdout(Stdio::null()).stderr(std::fs::File::create(&log)?);
        let mut child = command.spawn()?;
        loop {
            if let Some(grpc) = find_grpc_address(&log)? {
                return Ok(Self { grpc, child });
            }
            if child.try_wait()?.is_some() {
                let output_text = std::fs::read_to_string(&log)?;
                return Err(format!("the service exited before it listened:\n{output_text}").into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Both calls fail only if the process has already exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn find_grpc_address(log: &Path) -> Outcome<Option<String>> {
    let output_text = std::fs::read_to_string(log)?;
    let lines = output_text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut found = lines.filter(|line| line["message"] == "listening");
    Ok(found.next().and_then(|line| Some(format!("http://{}", line["grpc"].as_str()?))))
}
