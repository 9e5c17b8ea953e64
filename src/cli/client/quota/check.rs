//! `strongroom quota --check`: checks whether uploads would fit.

use serde_json::{Value, json};

use super::QuotaArgs;
use crate::{
    cli::client::{failure::Failure, human, output::Output, records},
    client::Client,
    proto::v1::{CheckQuotaRequest, CheckQuotaResponse, QuotaCheckItem, QuotaViolation},
};

pub(super) async fn run_check(client: &Client, args: QuotaArgs, output: Output) -> Result<(), Failure> {
    let (category, mime_type) = (args.category, args.mime_type);
    let item = |size_bytes: &i64| QuotaCheckItem {
        size_bytes: *size_bytes,
        category: category.clone(),
        mime_type: mime_type.clone(),
        file_id: String::new(),
    };
    let items = args.check.iter().map(item).collect();
    let response = client.check_quota(CheckQuotaRequest { items }).await?;
    if output.json {
        output.json(&to_json(&args.check, &response))?;
    } else {
        print(&args.check, &response, output)?;
    }
    if response.fits { Ok(()) } else { Err(Failure::UploadsDoNotFit) }
}

fn print(sizes: &[i64], response: &CheckQuotaResponse, output: Output) -> Result<(), Failure> {
    for (size, result) in sizes.iter().zip(&response.results) {
        let (size, verdict) = (human::size(*size), if result.fits { "fits" } else { "does not fit" });
        output.line(format_args!("{size:>10}  {verdict}"))?;
        print_violations(&result.violations, output)?;
    }
    let verdict = if response.fits { "fits" } else { "does not fit" };
    output.line(format_args!(
        "{:>10}  in total {verdict}; {} free",
        human::size(response.total_bytes),
        human::size(response.available_bytes),
    ))?;
    print_violations(&response.violations, output)
}

fn print_violations(violations: &[QuotaViolation], output: Output) -> Result<(), Failure> {
    violations.iter().try_for_each(|violation| {
        output.line(format_args!("            {}", human::printable(&violation.description)))
    })
}

fn to_json(sizes: &[i64], response: &CheckQuotaResponse) -> Value {
    let results = sizes.iter().zip(&response.results).map(|(size, result)| {
        json!({ "size_bytes": size, "fits": result.fits, "violations": violations_to_json(&result.violations) })
    });
    json!({
        "fits": response.fits,
        "results": results.collect::<Vec<_>>(),
        "total_bytes": response.total_bytes,
        "available_bytes": response.available_bytes,
        "file_count": response.file_count,
        "available_file_count": response.available_file_count,
        "violations": violations_to_json(&response.violations),
        "quota_state": response.quota_state.as_ref().map(records::quota_state),
    })
}

fn violations_to_json(violations: &[QuotaViolation]) -> Vec<Value> {
    let violations = violations.iter().map(|violation| {
        json!({ "reason": violation.reason().as_str_name(), "description": violation.description })
    });
    violations.collect()
}
