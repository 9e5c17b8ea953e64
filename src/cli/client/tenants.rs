//! `strongroom tenants`: operators lead tenants through their life.

use clap::{Args, Subcommand};
use futures::TryStreamExt;

use super::{
    connection::ConnectionArgs, exit, failure::Failure, human, output::Output, tenant_records as records,
};
use crate::{
    client::Client,
    proto::admin::v1::{
        CreateTenantRequest, DeleteTenantRequest, ExportTenantRequest, GetTenantRequest, ListTenantsRequest,
        ResumeTenantRequest, SuspendTenantRequest, Tenant, TenantDeletionPlan, TenantKind,
    },
};

/// Creates, suspends, exports and deletes tenants. For operators.
#[derive(Debug, Args)]
#[command(after_help = exit::HELP)]
pub(crate) struct TenantsArgs {
    /// What to do
    #[command(subcommand)]
    pub command: TenantsCommand,
}

/// What every one of these commands takes.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// Print the answers as JSON, one a line
    #[arg(long)]
    pub json: bool,
    /// Where
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

/// What can be done with tenants.
#[derive(Debug, Subcommand)]
pub(crate) enum TenantsCommand {
    /// List all tenants, those that were deleted too
    Ls {
        /// How and where
        #[command(flatten)]
        target: Target,
    },
    /// Show one tenant, and how far its deletion has come
    Show {
        /// The tenant
        id: String,
        /// How and where
        #[command(flatten)]
        target: Target,
    },
    /// Create a tenant
    Create(CreateArgs),
    /// Refuse every call of a tenant, reads too, until it is resumed
    Suspend {
        /// The tenant
        id: String,
        /// Why, for other operators
        #[arg(long, default_value = "", hide_default_value = true)]
        reason: String,
        /// How and where
        #[command(flatten)]
        target: Target,
    },
    /// Serve a suspended tenant again
    Resume {
        /// The tenant
        id: String,
        /// How and where
        #[command(flatten)]
        target: Target,
    },
    /// Show what there is to delete of a tenant; with --yes, begin to delete it for good
    Delete {
        /// The tenant
        id: String,
        /// Delete: rows and bytes, at once and for good
        #[arg(long)]
        yes: bool,
        /// How and where
        #[command(flatten)]
        target: Target,
    },
    /// Print every record of a tenant, as JSON, one a line. The bytes are not among them
    Export {
        /// The tenant
        id: String,
        /// How and where
        #[command(flatten)]
        target: Target,
    },
}

/// A new tenant.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// The organisation's or the person's id at the identity provider
    pub external_id: String,
    /// The issuer whose tokens name it
    #[arg(long, value_name = "URL")]
    pub issuer: String,
    /// It is one person, outside any organisation
    #[arg(long)]
    pub person: bool,
    /// general, workspace, crm, education or images; the configured one when absent
    #[arg(long, default_value = "", hide_default_value = true)]
    pub preset: String,
    /// How many bytes it may store at most, such as 10GiB
    #[arg(long, value_name = "SIZE", value_parser = human::parse_size)]
    pub ceiling: Option<i64>,
    /// How many files it may have at most; 0 is no limit
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    pub ceiling_files: Option<i64>,
    /// How and where
    #[command(flatten)]
    pub target: Target,
}

impl TenantsArgs {
    /// How and where.
    pub(super) fn target(&self) -> &Target {
        match &self.command {
            TenantsCommand::Create(args) => &args.target,
            TenantsCommand::Ls { target }
            | TenantsCommand::Show { target, .. }
            | TenantsCommand::Suspend { target, .. }
            | TenantsCommand::Resume { target, .. }
            | TenantsCommand::Delete { target, .. }
            | TenantsCommand::Export { target, .. } => target,
        }
    }
}

/// Does it.
pub(super) async fn run(args: TenantsArgs, output: Output) -> Result<(), Failure> {
    let client = args.target().connection.connect().await?;
    let request_id = String::new();
    let tenant = match args.command {
        TenantsCommand::Ls { .. } => return list(&client, output).await,
        TenantsCommand::Export { id, .. } => return export(&client, id, output).await,
        TenantsCommand::Delete { id, yes, .. } => return delete(&client, id, yes, output).await,
        TenantsCommand::Show { id, .. } => {
            client.get_tenant(GetTenantRequest { tenant_id: id }).await?.tenant
        }
        TenantsCommand::Create(args) => client.create_tenant(args.request()).await?.tenant,
        TenantsCommand::Suspend { id, reason, .. } => {
            let request = SuspendTenantRequest { tenant_id: id, reason, request_id };
            client.suspend_tenant(request).await?.tenant
        }
        TenantsCommand::Resume { id, .. } => {
            client.resume_tenant(ResumeTenantRequest { tenant_id: id, request_id }).await?.tenant
        }
    };
    print(&tenant.unwrap_or_default(), output)
}

impl CreateArgs {
    fn request(self) -> CreateTenantRequest {
        let kind = if self.person { TenantKind::Person } else { TenantKind::Organization };
        CreateTenantRequest {
            kind: kind.into(),
            issuer: self.issuer,
            external_id: self.external_id,
            preset: self.preset,
            ceiling_bytes: self.ceiling,
            ceiling_file_count: self.ceiling_files,
            request_id: String::new(),
        }
    }
}

async fn list(client: &Client, output: Output) -> Result<(), Failure> {
    let mut request = ListTenantsRequest { page_size: 1_000, page_token: String::new() };
    loop {
        let page = client.list_tenants(request.clone()).await?;
        for tenant in &page.tenants {
            if output.json {
                output.json(&records::tenant(tenant))?;
            } else {
                let (id, name) = (human::printable(&tenant.id), human::printable(&tenant.external_id));
                let preset = human::printable(&tenant.preset);
                output.line(format_args!("{id}  {:<10}  {preset:<10}  {name}", state(tenant)))?;
            }
        }
        if page.next_page_token.is_empty() {
            return Ok(());
        }
        request.page_token = page.next_page_token;
    }
}

async fn delete(client: &Client, id: String, yes: bool, output: Output) -> Result<(), Failure> {
    let request = DeleteTenantRequest { tenant_id: id, dry_run: !yes, request_id: String::new() };
    let answer = client.delete_tenant(request).await?;
    let (tenant, plan) = (answer.tenant.unwrap_or_default(), answer.plan.unwrap_or_default());
    if output.json {
        return output.json(&records::deletion(&tenant, &plan));
    }
    print(&tenant, output)?;
    print_plan(&plan, output)?;
    if !yes {
        output.note("nothing was deleted; --yes deletes it for good");
    }
    Ok(())
}

fn print_plan(plan: &TenantDeletionPlan, output: Output) -> Result<(), Failure> {
    let (files, objects) = (plan.file_count, plan.object_count);
    output.line(format_args!("to delete  {files} files, {objects} objects, {}", human::size(plan.bytes)))?;
    if plan.retained_file_count > 0 {
        let until = human::time_column(plan.retained_until_time.as_ref());
        let (kept, held) = (plan.retained_file_count, plan.held_file_count);
        output
            .line(format_args!("kept       {kept} files: {held} by legal holds, the others until {until}"))?;
    }
    Ok(())
}

async fn export(client: &Client, id: String, output: Output) -> Result<(), Failure> {
    let mut exported = std::pin::pin!(client.export_tenant(ExportTenantRequest { tenant_id: id }).await?);
    while let Some(record) = exported.try_next().await? {
        output.json(&records::exported(record))?;
    }
    Ok(())
}

fn print(tenant: &Tenant, output: Output) -> Result<(), Failure> {
    if output.json {
        return output.json(&records::tenant(tenant));
    }
    output.line(format_args!("tenant     {}", human::printable(&tenant.id)))?;
    output.line(format_args!("name       {}", human::printable(&tenant.external_id)))?;
    output.line(format_args!("issuer     {}", human::printable(&tenant.issuer)))?;
    output.line(format_args!("preset     {}", human::printable(&tenant.preset)))?;
    output.line(format_args!("born       {}", human::time_column(tenant.create_time.as_ref())))?;
    output.line(format_args!("state      {}", state(tenant)))?;
    if !tenant.state_reason.is_empty() {
        output.line(format_args!("why        {}", human::printable(&tenant.state_reason)))?;
    }
    let Some(deletion) = &tenant.deletion else { return Ok(()) };
    output.line(format_args!(
        "removed    {} rows, {} of {} objects, {}",
        deletion.removed_row_count,
        deletion.removed_object_count,
        deletion.object_count,
        human::size(deletion.removed_bytes),
    ))?;
    if !deletion.problem.is_empty() {
        output.line(format_args!("problem    {}", human::printable(&deletion.problem)))?;
    }
    Ok(())
}

fn state(tenant: &Tenant) -> String {
    tenant.state().as_str_name().trim_start_matches("TENANT_STATE_").to_lowercase()
}
