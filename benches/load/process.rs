//! CPU time and memory of processes, from /proc.

use std::{
    fs,
    ops::{AddAssign, Sub},
};

/// CPU time in seconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cpu {
    pub(crate) user: f64,
    pub(crate) system: f64,
}

impl Cpu {
    pub(crate) fn total(self) -> f64 {
        self.user + self.system
    }

    pub(crate) fn divide_by(self, count: f64) -> Self {
        Self { user: self.user / count, system: self.system / count }
    }

    /// Returns the CPU time of a process with all its threads.
    pub(crate) fn measure_process(pid: u32) -> Self {
        stat(pid).map(|stat| stat.cpu).unwrap_or_default()
    }

    /// Returns the CPU time of a process and of its terminated children.
    pub(crate) fn measure_with_ended_children(pid: u32) -> Self {
        let mut sum = Self::measure_process(pid);
        sum += stat(pid).map(|stat| stat.ended_children).unwrap_or_default();
        sum
    }

    /// Returns the CPU time of a process and its direct children, including terminated ones.
    pub(crate) fn measure_with_children(parent: u32) -> Self {
        let mut sum = Self::measure_with_ended_children(parent);
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        for pid in processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
            if let Some(stat) = stat(pid).filter(|stat| stat.parent == parent) {
                sum += stat.cpu;
            }
        }
        sum
    }
}

impl Sub for Cpu {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self { user: self.user - earlier.user, system: self.system - earlier.system }
    }
}

impl AddAssign for Cpu {
    fn add_assign(&mut self, other: Self) {
        self.user += other.user;
        self.system += other.system;
    }
}

struct Stat {
    parent: u32,
    cpu: Cpu,
    ended_children: Cpu,
}

/// Parses the fields 4 and 14 to 17 of `stat` (see proc(5)), counted after the name, which can contain any
/// character.
fn stat(pid: u32) -> Option<Stat> {
    // USER_HZ, which is 100 on all supported architectures.
    const TICKS_PER_SECOND: f64 = 100.0;
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let seconds = |field: usize| Some(fields.get(field)?.parse::<f64>().ok()? / TICKS_PER_SECOND);
    let cpu = |first: usize| Some(Cpu { user: seconds(first)?, system: seconds(first + 1)? });
    Some(Stat { parent: fields.get(1)?.parse().ok()?, cpu: cpu(11)?, ended_children: cpu(13)? })
}

/// Returns the peak resident memory of a process.
pub(crate) fn peak_resident_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}
