//! The command line.

use std::{path::PathBuf, time::Duration};

pub(crate) const HELP: &str = "\
Usage: scripts/load [--quick] [--only TEXT]… [--rounds N] [--set KEY=VALUE]… [--json FILE] [--list]

  --quick       three short rounds with smaller files: to see a trend, not to quote
  --only        only rows whose name contains one of these
  --rounds      how often each row is measured (default 5, with --quick 3)
  --seconds     how long each row of small files runs, in each round (default 4, with --quick 2)
  --set         a configuration key of the services, such as uploads.part_size_bytes=16777216, to compare settings
  --json FILE   the samples too, for machines
  --list        the names of the rows, and nothing else";

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
    /// Nothing where only help was wanted.
    pub(crate) fn read(arguments: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
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
            let number = |text: String| text.parse::<u64>().map_err(|_| format!("{text} is no number"));
            match argument.as_str() {
                "--quick" => options.is_quick = true,
                "--only" => options.only.push(value()?),
                "--rounds" => options.rounds = usize::try_from(number(value()?)?).unwrap_or(usize::MAX),
                "--seconds" => options.seconds = Some(number(value()?)?.max(1)),
                "--set" => {
                    let setting = value()?;
                    let (key, value) =
                        setting.split_once('=').ok_or(format!("{setting} is not KEY=VALUE"))?;
                    options.set.push((key.to_owned(), value.to_owned()));
                }
                "--json" => options.json = Some(value()?.into()),
                "--list" => options.list = true,
                "--help" => {
                    println!("{HELP}");
                    return Ok(None);
                }
                // cargo says so to every benchmark.
                "--bench" => {}
                _ => return Err(format!("unknown argument {argument}")),
            }
        }
        if options.rounds == 0 {
            options.rounds = if options.is_quick { 3 } else { 5 };
        }
        Ok(Some(options))
    }

    pub(crate) fn wants(&self, row: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|text| row.contains(text.as_str()))
    }

    /// How long small files are uploaded in one round.
    pub(crate) fn window(&self) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(if self.is_quick { 2 } else { 4 }))
    }

    /// The size of a large file.
    pub(crate) fn large_bytes(&self) -> u64 {
        if self.is_quick { 256 << 20 } else { 1 << 30 }
    }

    /// The size of each of the files that are uploaded at once to see the memory.
    pub(crate) fn crowd_bytes(&self) -> u64 {
        if self.is_quick { 64 << 20 } else { 1 << 30 }
    }
}
