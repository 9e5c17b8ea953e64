//! `strongroom tenants reclaim`, `request-erasure`, `approve-erasure` and `erasures`.

use super::{failure::Failure, human, output::Output, tenant_records as records};
use crate::{
    client::Client,
    proto::admin::v1::{
        ApproveErasureRequest, Erasure, ListErasuresRequest, ReclaimTenantRequest, RequestErasureRequest,
    },
};

/// Reclaims until no purged object is left whose deletion is scheduled for later.
pub(super) async fn reclaim_tenant(client: &Client, id: String, output: Output) -> Result<(), Failure> {
    let (mut object_count, mut bytes) = (0, 0);
    loop {
        let request = ReclaimTenantRequest { tenant_id: id.clone(), request_id: String::new() };
        let reclaimed = client.reclaim_tenant(request).await?;
        object_count += reclaimed.object_count;
        bytes += reclaimed.bytes;
        if !reclaimed.has_more {
            break;
        }
    }
    if output.json {
        return output.json(&serde_json::json!({ "object_count": object_count, "bytes": bytes }));
    }
    output.line(format_args!("due now    {object_count} objects, {}", human::size(bytes)))
}

pub(super) async fn request_erasure(
    client: &Client,
    request: RequestErasureRequest,
    output: Output,
) -> Result<(), Failure> {
    let erasure = client.request_erasure(request).await?.erasure.unwrap_or_default();
    print_erasure(&erasure, output)?;
    let (tenant, id) = (human::printable(&erasure.tenant_id), human::printable(&erasure.id));
    output.note(format!(
        "nothing is erased yet; another operator approves it with: strongroom tenants approve-erasure {tenant} {id}"
    ));
    Ok(())
}

pub(super) async fn approve_erasure(
    client: &Client,
    request: ApproveErasureRequest,
    output: Output,
) -> Result<(), Failure> {
    let erasure = client.approve_erasure(request).await?.erasure.unwrap_or_default();
    print_erasure(&erasure, output)
}

pub(super) async fn list_erasures(client: &Client, id: String, output: Output) -> Result<(), Failure> {
    for erasure in client.list_erasures(ListErasuresRequest { tenant_id: id }).await?.erasures {
        print_erasure(&erasure, output)?;
    }
    Ok(())
}

fn print_erasure(erasure: &Erasure, output: Output) -> Result<(), Failure> {
    if output.json {
        return output.json(&records::erasure(erasure));
    }
    let file = if erasure.file_id.is_empty() { "the whole tenant" } else { &erasure.file_id };
    output.line(format_args!("erasure    {}", human::printable(&erasure.id)))?;
    output.line(format_args!("of         {}", human::printable(file)))?;
    output.line(format_args!("reason     {}", human::printable(&erasure.reason)))?;
    output.line(format_args!("requested  by {}", human::printable(&erasure.requested_by)))?;
    match erasure.approve_time {
        Some(_) => output.line(format_args!("approved   by {}", human::printable(&erasure.approved_by)))?,
        None => output.line(format_args!("approved   no"))?,
    }
    match &erasure.use_time {
        Some(time) => output.line(format_args!("used       {}", human::time_column(Some(time)))),
        None => output.line(format_args!("expires    {}", human::time_column(erasure.expire_time.as_ref()))),
    }
}
