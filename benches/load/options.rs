//! The command line.

use std::{path::PathBuf, time::Duration};

pub(crate) const HELP: &str = "\
Usage: scripts/load [--quick] [--only TEXT]… [--rounds N] [--seconds N] [--set KEY=VALUE]… [--json FILE] [--list]

  --quick       three short rounds with smaller files; shows trends only
  --only TEXT   only rows whose name contains TEXT; may be repeated
  --rounds N    number of rounds (default 5, with --quick 3)
  --seconds N   duration of each row of small files in each round (default 4, with --quick 2)
  --set         overrides a configuration key, such as uploads.part_size_bytes=16777216
  --json FILE   also writes all samples to FILE as JSON
  --list        prints the names of all rows and exits";

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) is_quick: bool,
    pub(crate) only: Vec<String>,
    pub(crate) rounds: usize,
    seconds: Option<u64>,
    pub(crate) set: Vec<(String, String)>,
    pub(crate) json: Option<PathBuf>,
    pub(crate) list: bool,
}

impl Options {
    /// Parses the arguments. Returns `None` if only the help text was requested.
    pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut options = Self {
            is_quick: false,
            only: Vec::new(),
            rounds: 0,
            seconds: None,
            set: Vec::new(),
            json: None,
            list: false,
        };
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            let number = |text: String| text.parse::<u64>().map_err(|_| format!("{text} is not a number"));
            match argument.as_str() {
                "--quick" => options.is_quick = true,
                "--only" => options.only.push(value()?),
                "--rounds" => options.rounds = usize::try_from(number(value()?)?).unwrap_or(usize::MAX),
                "--seconds" => options.seconds = Some(number(value()?)?.max(1)),
                "--set" => {
                    let setting = value()?;
                    let (key, value) =
                        setting.split_once('=').ok_or(format!("{setting} is not in the form KEY=VALUE"))?;
                    options.set.push((key.to_owned(), value.to_owned()));
                }
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
        if options.rounds == 0 {
            options.rounds = if options.is_quick { 3 } else { 5 };
        }
        Ok(Some(options))
    }

    pub(crate) fn selects(&self, row: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|text| row.contains(text.as_str()))
    }

    /// Returns the duration of the upload of small files in one round.
    pub(crate) fn window(&self) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(if self.is_quick { 2 } else { 4 }))
    }

    /// Returns the size of a large file.
    pub(crate) fn large_file_size_bytes(&self) -> u64 {
        if self.is_quick { 256 << 20 } else { 1 << 30 }
    }

    /// Returns the size of each of the files that are uploaded concurrently to measure memory.
    pub(crate) fn concurrent_file_size_bytes(&self) -> u64 {
        if self.is_quick { 64 << 20 } else { 1 << 30 }
    }
}
