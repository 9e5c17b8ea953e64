//! Options of several maintenance commands: what they process, and what they print.

use clap::Args;

use super::dev::attach::DevDirectory;

/// Selects one or all providers.
#[derive(Debug, Args)]
pub(super) struct ProviderSelection {
    /// The provider, as named in `storage.providers`. Default: all of them.
    #[arg(long, value_name = "NAME")]
    pub(super) provider: Option<String>,
}

/// The options of commands that list objects.
#[derive(Debug, Args)]
pub(super) struct ObjectListArgs {
    #[command(flatten)]
    pub(super) selection: ProviderSelection,
    /// The maximum number of objects in each list of the result. All are counted.
    #[arg(long, default_value_t = 100, value_name = "COUNT")]
    pub(super) limit: usize,
    /// Print the result as JSON.
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) data: DevDirectory,
}
