//! The command line.

use std::{path::PathBuf, time::Duration};

pub(crate) const HELP: &str = "\
Usage: scripts/load [--quick | --smoke] [--only TEXT]… [--rounds N] [--seconds N] [--set KEY=VALUE]…
                    [--compare PROGRAM] [--json FILE] [--list]

  --quick            three short rounds with smaller files; shows trends only
  --smoke            one round of the first row of each kind, with tiny files; shows only whether the rows work
  --only TEXT        only rows whose name contains TEXT; may be repeated
  --rounds N         number of rounds (default 5, with --quick 3, with --smoke 1)
  --seconds N        duration of each row of small files and of lists in each round (default 4, with --quick 2, with
                     --smoke 1)
  --set KEY=VALUE    overrides a configuration key, such as uploads.part_size_bytes=16777216
  --compare PROGRAM  measures the rows of the service with this build and with PROGRAM, another strongroom program, in
                     turns, and prints the ratios; with `self` as PROGRAM they show the noise of the machine
  --json FILE        also writes all samples to FILE as JSON
  --list             prints the names of all rows and exits";

/// The amount of work per row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    Full,
    Quick,
    Smoke,
}

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) scale: Scale,
    pub(crate) only: Vec<String>,
    rounds: Option<usize>,
    seconds: Option<u64>,
    pub(crate) set: Vec<(String, String)>,
    /// The program to compare this build with.
    pub(crate) compare: Option<PathBuf>,
    pub(crate) json: Option<PathBuf>,
    pub(crate) list: bool,
}

impl Options {
    /// Parses the arguments. Returns `None` if only the help text was requested.
    pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut options = Self {
            scale: Scale::Full,
            only: Vec::new(),
            rounds: None,
            seconds: None,
            set: Vec::new(),
            compare: None,
            json: None,
            list: false,
        };
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            let number = |text: String| text.parse::<u64>().map_err(|_| format!("{text} is not a number"));
            match argument.as_str() {
                "--quick" => options.scale = Scale::Quick,
                "--smoke" => options.scale = Scale::Smoke,
                "--only" => options.only.push(value()?),
                "--rounds" => {
                    options.rounds = Some(usize::try_from(number(value()?)?.max(1)).unwrap_or(usize::MAX));
                }
                "--seconds" => options.seconds = Some(number(value()?)?.max(1)),
                "--set" => {
                    let setting = value()?;
                    let (key, value) =
                        setting.split_once('=').ok_or(format!("{setting} is not in the form KEY=VALUE"))?;
                    options.set.push((key.to_owned(), value.to_owned()));
                }
                "--compare" => options.compare = Some(value()?.into()),
                "--json" => options.json = Some(value()?.into()),
                "--list" => options.list = true,
                "--help" => {
                    println!("{HELP}");
                    return Ok(None);
                }
                // cargo passes this argument to every benchmark.
                "--bench" => {}
                _ => return Err(format!("unknown argument {argument}")),
            }
        }
        Ok(Some(options))
    }

    pub(crate) fn selects(&self, row: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|text| row.contains(text.as_str()))
    }

    /// Returns one of three values, by scale.
    fn by_scale<T>(&self, full: T, quick: T, smoke: T) -> T {
        match self.scale {
            Scale::Full => full,
            Scale::Quick => quick,
            Scale::Smoke => smoke,
        }
    }

    pub(crate) fn rounds(&self) -> usize {
        self.rounds.unwrap_or(self.by_scale(5, 3, 1))
    }

    /// Returns the duration of a row of small files, or of lists, in one round.
    pub(crate) fn window(&self) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(self.by_scale(4, 2, 1)))
    }

    /// Returns the size of a large file. It is a multiple of the part size of the direct uploads.
    pub(crate) fn large_file_size_bytes(&self) -> u64 {
        self.by_scale(1 << 30, 256 << 20, 16 << 20)
    }

    /// Returns the size of each of the files that are uploaded concurrently to measure memory.
    pub(crate) fn concurrent_file_size_bytes(&self) -> u64 {
        self.by_scale(1 << 30, 64 << 20, 1 << 20)
    }

    /// Returns the number of files of the tenant whose files are listed.
    pub(crate) fn listed_file_count(&self) -> u32 {
        self.by_scale(100_000, 20_000, 2_000)
    }
}
