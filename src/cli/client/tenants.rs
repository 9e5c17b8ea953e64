//! `strongroom tenants`: creates, suspends, exports and deletes tenants.

use clap::{Args, Subcommand};
use futures::TryStreamExt;
use prost_types::FieldMask;

use super::{
    connection::ConnectionArgs,
    erasures, exit,
    failure::Failure,
    human,
    output::Output,
    tenant_rate_limits::{self, RateLimitArg},
    tenant_records as records,
};
use crate::{
    client::Client,
    proto::admin::v1::{
        ApproveErasureRequest, CreateTenantRequest, DeleteTenantRequest, ExportTenantRequest,
        GetTenantRequest, ListTenantsRequest, RequestErasureRequest, ResumeTenantRequest,
        SuspendTenantRequest, Tenant, TenantDeletionPlan, TenantKind, TenantRateLimits, UpdateTenantRequest,
    },
};

#[derive(Debug, Args)]
#[command(after_help = exit::HELP)]
pub(crate) struct TenantsArgs {
    #[command(subcommand)]
    pub command: TenantsCommand,
}

/// The options that all tenant commands share.
#[derive(Debug, Args)]
pub(crate) struct CommonArgs {
    /// Print the results as JSON, one document per line.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TenantsCommand {
    /// List all tenants, including deleted ones.
    Ls {
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Show a tenant and the progress of its deletion.
    Show {
        /// The id of the tenant.
        id: String,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Create a tenant.
    Create(CreateArgs),
    /// Reject all calls of a tenant, including reads, until it is resumed.
    Suspend {
        /// The id of the tenant.
        id: String,
        /// The reason, which other operators can see.
        #[arg(long, default_value = "", hide_default_value = true)]
        reason: String,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Resume a suspended tenant.
    Resume {
        /// The id of the tenant.
        id: String,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Show what would be deleted with a tenant; with --yes, start deleting it permanently.
    Delete {
        /// The id of the tenant.
        id: String,
        /// Delete all rows and objects of the tenant. This cannot be undone.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Change limits of a tenant that only operators change, or make a tenant read-only.
    Update(UpdateArgs),
    /// Make the objects of a tenant's purged files due for deletion now. A database that is restored to an earlier
    /// time no longer finds them.
    Reclaim {
        /// The id of the tenant.
        id: String,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Request the erasure of a tenant, or of one file, before its retention ends. Another operator must approve it.
    RequestErasure {
        /// The id of the tenant.
        id: String,
        /// The legal reason, which the other operator sees and the audit log keeps.
        #[arg(long)]
        reason: String,
        /// Erase only this file, which its owner or an admin then purges.
        #[arg(long, value_name = "FILE_ID", default_value = "", hide_default_value = true)]
        file: String,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Approve an erasure that another operator requested.
    ApproveErasure {
        /// The id of the tenant.
        id: String,
        /// The id of the erasure.
        erasure_id: String,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// List the newest erasures of a tenant.
    Erasures {
        /// The id of the tenant.
        id: String,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Print all records of a tenant as JSON, one per line, without the contents of files.
    Export {
        /// The id of the tenant.
        id: String,
        #[command(flatten)]
        common: CommonArgs,
    },
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// The id of the organization or person at the identity provider.
    pub external_id: String,
    /// The issuer of its tokens.
    #[arg(long, value_name = "URL")]
    pub issuer: String,
    /// Create a tenant for a person instead of an organization.
    #[arg(long)]
    pub person: bool,
    /// The policy preset: general, workspace, crm, education or images. Default: the configured preset.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub preset: String,
    /// The ceiling and initial value of the storage limit, such as 10GiB. Default: the preset's.
    #[arg(long, value_name = "SIZE", value_parser = human::parse_size)]
    pub ceiling: Option<i64>,
    /// The ceiling and initial value of the file count limit; 0 means no limit. Default: the preset's.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    pub ceiling_files: Option<i64>,
    #[command(flatten)]
    pub common: CommonArgs,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("limits").required(true).multiple(true))]
pub(crate) struct UpdateArgs {
    /// The id of the tenant.
    pub id: String,
    /// The maximum number of days between now and a retain_until_time that admins set; 0 means that they may not.
    #[arg(long, value_name = "DAYS", group = "limits")]
    pub retain_admin_days: Option<i32>,
    /// The same maximum for members, who may set it on their own files only; 0 means that they may not.
    #[arg(long, value_name = "DAYS", group = "limits")]
    pub retain_member_days: Option<i32>,
    /// The maximum of the bytes that are pending deletion, as a multiple of the storage limit.
    #[arg(long, value_name = "N", group = "limits")]
    pub pending_deletion_multiple: Option<i64>,
    /// Whether the tenant is read-only: reads work, and every change by its members, admins and services fails.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", group = "limits")]
    pub read_only: Option<bool>,
    /// A limit of the requests of the tenant (tenant_requests_per_second) or of each of its callers
    /// (caller_requests_per_second, or caller_reads_, caller_lists_, caller_downloads_, caller_uploads_ or
    /// caller_changes_per_second); 0 means the limit of the configuration. Can be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = tenant_rate_limits::parse, group = "limits")]
    pub rate_limit: Vec<RateLimitArg>,
    #[command(flatten)]
    pub common: CommonArgs,
}

impl UpdateArgs {
    fn request(self) -> UpdateTenantRequest {
        let set = [
            ("retain_admin_days_max", self.retain_admin_days.is_some()),
            ("retain_member_days_max", self.retain_member_days.is_some()),
            ("pending_deletion_multiple", self.pending_deletion_multiple.is_some()),
            ("read_only", self.read_only.is_some()),
        ];
        let mut paths: Vec<String> =
            set.into_iter().filter(|(_, is_set)| *is_set).map(|(path, _)| path.to_owned()).collect();
        let mut rate_limits = TenantRateLimits::default();
        for limit in self.rate_limit {
            *tenant_rate_limits::field(&mut rate_limits, limit.limit) = limit.per_second_max;
            paths.push(format!("rate_limits.{}", limit.limit.key()));
        }
        UpdateTenantRequest {
            tenant_id: self.id,
            retain_admin_days_max: self.retain_admin_days.unwrap_or_default(),
            retain_member_days_max: self.retain_member_days.unwrap_or_default(),
            pending_deletion_multiple: self.pending_deletion_multiple.unwrap_or_default(),
            read_only: self.read_only.unwrap_or_default(),
            rate_limits: Some(rate_limits),
            update_mask: Some(FieldMask { paths }),
            ..UpdateTenantRequest::default()
        }
    }
}

impl TenantsArgs {
    pub(super) fn common(&self) -> &CommonArgs {
        match &self.command {
            TenantsCommand::Create(args) => &args.common,
            TenantsCommand::Update(args) => &args.common,
            TenantsCommand::Ls { common }
            | TenantsCommand::Show { common, .. }
            | TenantsCommand::Suspend { common, .. }
            | TenantsCommand::Resume { common, .. }
            | TenantsCommand::Delete { common, .. }
            | TenantsCommand::Reclaim { common, .. }
            | TenantsCommand::RequestErasure { common, .. }
            | TenantsCommand::ApproveErasure { common, .. }
            | TenantsCommand::Erasures { common, .. }
            | TenantsCommand::Export { common, .. } => common,
        }
    }
}

pub(super) async fn run_tenants(args: TenantsArgs, output: Output) -> Result<(), Failure> {
    let client = args.common().connection.connect().await?;
    let request_id = String::new();
    let tenant = match args.command {
        TenantsCommand::Ls { .. } => return list_tenants(&client, output).await,
        TenantsCommand::Export { id, .. } => return export_tenant(&client, id, output).await,
        TenantsCommand::Reclaim { id, .. } => return erasures::reclaim_tenant(&client, id, output).await,
        TenantsCommand::RequestErasure { id, reason, file, .. } => {
            let request = RequestErasureRequest { tenant_id: id, file_id: file, reason, request_id };
            return erasures::request_erasure(&client, request, output).await;
        }
        TenantsCommand::ApproveErasure { id, erasure_id, .. } => {
            let request = ApproveErasureRequest { tenant_id: id, erasure_id, request_id };
            return erasures::approve_erasure(&client, request, output).await;
        }
        TenantsCommand::Erasures { id, .. } => return erasures::list_erasures(&client, id, output).await,
        TenantsCommand::Delete { id, yes, .. } => return delete_tenant(&client, id, yes, output).await,
        TenantsCommand::Show { id, .. } => {
            client.get_tenant(GetTenantRequest { tenant_id: id }).await?.tenant
        }
        TenantsCommand::Update(args) => client.update_tenant(args.request()).await?.tenant,
        TenantsCommand::Create(args) => client.create_tenant(args.request()).await?.tenant,
        TenantsCommand::Suspend { id, reason, .. } => {
            let request = SuspendTenantRequest { tenant_id: id, reason, request_id };
            client.suspend_tenant(request).await?.tenant
        }
        TenantsCommand::Resume { id, .. } => {
            client.resume_tenant(ResumeTenantRequest { tenant_id: id, request_id }).await?.tenant
        }
    };
    print_tenant(&tenant.unwrap_or_default(), output)
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

async fn list_tenants(client: &Client, output: Output) -> Result<(), Failure> {
    let mut request = ListTenantsRequest { page_size: 1_000, page_token: String::new() };
    loop {
        let page = client.list_tenants(request.clone()).await?;
        for tenant in &page.tenants {
            if output.json {
                output.json(&records::tenant(tenant))?;
            } else {
                let (id, name) = (human::printable(&tenant.id), human::printable(&tenant.external_id));
                let preset = human::printable(&tenant.preset);
                output.line(format_args!("{id}  {:<10}  {preset:<10}  {name}", format_state(tenant)))?;
            }
        }
        if page.next_page_token.is_empty() {
            return Ok(());
        }
        request.page_token = page.next_page_token;
    }
}

async fn delete_tenant(
    client: &Client,
    id: String,
    is_confirmed: bool,
    output: Output,
) -> Result<(), Failure> {
    let request = DeleteTenantRequest { tenant_id: id, dry_run: !is_confirmed, request_id: String::new() };
    let response = client.delete_tenant(request).await?;
    let (tenant, plan) = (response.tenant.unwrap_or_default(), response.plan.unwrap_or_default());
    if output.json {
        return output.json(&records::deletion(&tenant, &plan));
    }
    print_tenant(&tenant, output)?;
    print_plan(&plan, output)?;
    if !is_confirmed {
        output.note("nothing was deleted; pass --yes to delete the tenant permanently");
    }
    Ok(())
}

fn print_plan(plan: &TenantDeletionPlan, output: Output) -> Result<(), Failure> {
    let (files, objects) = (plan.file_count, plan.object_count);
    output.line(format_args!("to delete  {files} files, {objects} objects, {}", human::size(plan.bytes)))?;
    if plan.retained_file_count > 0 {
        let until = human::time_column(plan.retained_until_time.as_ref());
        let (retained, held) = (plan.retained_file_count, plan.held_file_count);
        output.line(format_args!(
            "retained   {retained} files: {held} by legal holds, the others until {until}"
        ))?;
    }
    Ok(())
}

async fn export_tenant(client: &Client, id: String, output: Output) -> Result<(), Failure> {
    let mut exported = std::pin::pin!(client.export_tenant(ExportTenantRequest { tenant_id: id }).await?);
    while let Some(record) = exported.try_next().await? {
        output.json(&records::export_record(record))?;
    }
    Ok(())
}

fn print_tenant(tenant: &Tenant, output: Output) -> Result<(), Failure> {
    if output.json {
        return output.json(&records::tenant(tenant));
    }
    output.line(format_args!("tenant     {}", human::printable(&tenant.id)))?;
    output.line(format_args!("name       {}", human::printable(&tenant.external_id)))?;
    output.line(format_args!("issuer     {}", human::printable(&tenant.issuer)))?;
    output.line(format_args!("preset     {}", human::printable(&tenant.preset)))?;
    output.line(format_args!("created    {}", human::time_column(tenant.create_time.as_ref())))?;
    output.line(format_args!("state      {}", format_state(tenant)))?;
    if tenant.read_only {
        output.line(format_args!("read-only  yes"))?;
    }
    let limits = tenant.rate_limits.iter().flat_map(tenant_rate_limits::list);
    for (key, per_second_max) in limits.filter(|(_, per_second_max)| *per_second_max != 0) {
        output.line(format_args!("rate limit {key}={per_second_max}"))?;
    }
    if !tenant.state_reason.is_empty() {
        output.line(format_args!("reason     {}", human::printable(&tenant.state_reason)))?;
    }
    let Some(deletion) = &tenant.deletion else { return Ok(()) };
    output.line(format_args!(
        "deleted    {} rows, {} of {} objects, {}",
        deletion.erased_row_count,
        deletion.erased_object_count,
        deletion.object_count,
        human::size(deletion.erased_bytes),
    ))?;
    if !deletion.problem.is_empty() {
        output.line(format_args!("problem    {}", human::printable(&deletion.problem)))?;
    }
    Ok(())
}

fn format_state(tenant: &Tenant) -> String {
    tenant.state().as_str_name().trim_start_matches("TENANT_STATE_").to_lowercase()
}
