//! `strongroom credits`: shows, adds and deducts credits, and lists the ledger of a user.

use clap::{Args, Subcommand};

use super::{connection::ConnectionArgs, exit, failure::Failure, human, output::Output, records};
use crate::proto::v1::{
    AddCreditsRequest, CreditBalance, CreditEntry, DeductCreditsRequest, GetCreditsRequest,
    ListCreditEntriesRequest,
};

const EXAMPLES: &str = "Examples:
  strongroom credits
  strongroom credits --user alice
  strongroom credits ls --user alice
  strongroom credits add alice 500 --reason 'invoice paid' --reference INV-7
  strongroom credits deduct alice 20 --reason 'course booked'";

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, after_help = [EXAMPLES, exit::HELP].join("\n\n"))]
pub(crate) struct CreditsArgs {
    #[command(subcommand)]
    pub command: Option<CreditsCommand>,
    #[command(flatten)]
    pub of: OwnerArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CreditsCommand {
    /// Add credits to a user; for operators and tokens with the scope `credits:write`.
    #[command(after_help = exit::HELP)]
    Add(ChangeArgs),
    /// Deduct credits of a user; for operators and tokens with the scope `credits:write`.
    ///
    /// A user never has less than 0 credits: a deduction of more credits than the user has changes nothing.
    #[command(after_help = exit::HELP)]
    Deduct(ChangeArgs),
    /// List all entries of a user's ledger, the newest first.
    #[command(after_help = exit::HELP)]
    Ls(OwnerArgs),
}

/// The user whose credits are shown.
#[derive(Debug, Args)]
pub(crate) struct OwnerArgs {
    /// The id of the user, for admins, services and operators. Default: the caller.
    #[arg(long, value_name = "USER", default_value = "", hide_default_value = true)]
    pub user: String,
    #[command(flatten)]
    pub common: CommonArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ChangeArgs {
    /// The id of the user: the subject of a user's token, or `service:` and that of a service's.
    pub user: String,
    /// The number of credits.
    #[arg(value_parser = clap::value_parser!(i64).range(1..))]
    pub amount: i64,
    /// The reason, for people.
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// The id of the order, invoice or file that the change is for.
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    pub reference: String,
    #[command(flatten)]
    pub common: CommonArgs,
}

/// The options that all commands share.
#[derive(Debug, Args)]
pub(crate) struct CommonArgs {
    /// The id of the tenant, for operators. Default: the caller's tenant.
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    pub tenant: String,
    /// Print the results as JSON, one document per line.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

impl CreditsArgs {
    pub(super) fn common(&self) -> &CommonArgs {
        match &self.command {
            None => &self.of.common,
            Some(CreditsCommand::Ls(args)) => &args.common,
            Some(CreditsCommand::Add(args) | CreditsCommand::Deduct(args)) => &args.common,
        }
    }
}

pub(super) async fn run_credits(args: CreditsArgs, output: Output) -> Result<(), Failure> {
    let client = args.common().connection.connect().await?;
    let request_id = String::new();
    let entry = match args.command {
        None => {
            let OwnerArgs { user: user_id, common } = args.of;
            let request = GetCreditsRequest { tenant_id: common.tenant, user_id };
            return print_balance(&client.get_credits(request).await?.credits.unwrap_or_default(), output);
        }
        Some(CreditsCommand::Ls(args)) => {
            let (tenant_id, user_id) = (args.common.tenant, args.user);
            let mut request = ListCreditEntriesRequest { tenant_id, user_id, ..Default::default() };
            print_heading(output)?;
            loop {
                let page = client.list_credit_entries(request.clone()).await?;
                page.entries.iter().try_for_each(|entry| print_entry(entry, output))?;
                if page.next_page_token.is_empty() {
                    return Ok(());
                }
                request.page_token = page.next_page_token;
            }
        }
        Some(CreditsCommand::Add(args)) => {
            let ChangeArgs { user: user_id, amount, reason, reference, common } = args;
            let tenant_id = common.tenant;
            let request = AddCreditsRequest { tenant_id, user_id, amount, reason, reference, request_id };
            client.add_credits(request).await?.entry
        }
        Some(CreditsCommand::Deduct(args)) => {
            let ChangeArgs { user: user_id, amount, reason, reference, common } = args;
            let tenant_id = common.tenant;
            let request = DeductCreditsRequest { tenant_id, user_id, amount, reason, reference, request_id };
            client.deduct_credits(request).await?.entry
        }
    };
    print_heading(output)?;
    print_entry(&entry.unwrap_or_default(), output)
}

fn print_balance(credits: &CreditBalance, output: Output) -> Result<(), Failure> {
    if output.json {
        return output.json(&records::credits(credits));
    }
    output.line(format_args!("user       {}", human::printable(&credits.user_id)))?;
    output.line(format_args!("credits    {}", credits.balance))?;
    output.line(format_args!("entries    {}", credits.entry_count))?;
    output.line(format_args!("changed    {}", human::time_column(credits.update_time.as_ref())))
}

/// Prints the heading of the columns that [`print_entry`] prints.
fn print_heading(output: Output) -> Result<(), Failure> {
    if output.json {
        return Ok(());
    }
    output.line(
        "NUMBER      AMOUNT     BALANCE  TIME                  BY                REFERENCE         REASON",
    )
}

fn print_entry(entry: &CreditEntry, output: Output) -> Result<(), Failure> {
    if output.json {
        return output.json(&records::credit_entry(entry));
    }
    output.line(format_args!(
        "{:>6}  {:>+10}  {:>10}  {:<20}  {:<16}  {:<16}  {}",
        entry.number,
        entry.amount,
        entry.balance_after,
        human::time_column(entry.create_time.as_ref()),
        human::printable(&entry.created_by),
        human::printable(&entry.reference),
        human::printable(&entry.reason),
    ))
}
