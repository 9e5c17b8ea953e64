//! `strongroom info`: shows the version, the limits and the features of a server.

use clap::Args;
use prost_types::Duration;
use serde_json::{Map, Value, json};

use super::{connection::ConnectionArgs, exit, failure::Failure, human, output::Output};
use crate::proto::v1::{ServiceFeatures, ServiceInfo, ServiceLimits};

#[derive(Debug, Args)]
#[command(after_help = exit::HELP)]
pub(crate) struct InfoArgs {
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

/// The value of a limit, with its unit.
enum Limit {
    Bytes(i64),
    Count(i64),
    Time(Option<Duration>),
}

impl Limit {
    fn to_json(&self) -> Value {
        match self {
            Self::Bytes(number) | Self::Count(number) => json!(number),
            Self::Time(time) => json!(time.as_ref().map(ToString::to_string)),
        }
    }

    fn to_text(&self) -> String {
        match self {
            Self::Bytes(bytes) => human::size(*bytes),
            Self::Count(count) => count.to_string(),
            Self::Time(time) => time.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
        }
    }
}

pub(super) async fn run_info(args: InfoArgs, output: Output) -> Result<(), Failure> {
    let client = args.connection.connect().await?;
    let info = client.get_service_info().await?.service_info.unwrap_or_default();
    print_info(&info, output)
}

fn print_info(info: &ServiceInfo, output: Output) -> Result<(), Failure> {
    let limits = name_limits(&info.limits.unwrap_or_default());
    let features = name_features(info.features.unwrap_or_default());
    if output.json {
        let limits: Map<String, Value> =
            limits.iter().map(|(name, limit)| ((*name).to_owned(), limit.to_json())).collect();
        let features: Map<String, Value> =
            features.iter().map(|(name, is_provided)| ((*name).to_owned(), json!(is_provided))).collect();
        return output.json(&json!({ "version": info.version, "limits": limits, "features": features }));
    }
    output.line(format_args!("{:<36}{}", "version", human::printable(&info.version)))?;
    for (name, limit) in &limits {
        output.line(format_args!("{name:<36}{}", limit.to_text()))?;
    }
    for (name, is_provided) in features {
        output.line(format_args!("{name:<36}{}", if is_provided { "yes" } else { "no" }))?;
    }
    Ok(())
}

/// Returns the limits with the names of their fields in the contract.
fn name_limits(limits: &ServiceLimits) -> [(&'static str, Limit); 26] {
    use Limit::{Bytes, Count, Time};
    [
        ("chunk_size_max_bytes", Bytes(limits.chunk_size_max_bytes)),
        ("part_size_bytes", Bytes(limits.part_size_bytes)),
        ("part_count_max", Count(limits.part_count_max)),
        ("direct_part_count_max", Count(limits.direct_part_count_max)),
        ("message_size_max_bytes", Bytes(limits.message_size_max_bytes)),
        ("upload_part_message_size_max_bytes", Bytes(limits.upload_part_message_size_max_bytes)),
        ("small_message_size_max_bytes", Bytes(limits.small_message_size_max_bytes)),
        ("header_list_size_max_bytes", Bytes(limits.header_list_size_max_bytes)),
        ("page_size_default", Count(limits.page_size_default)),
        ("page_size_max", Count(limits.page_size_max)),
        ("page_size_max_bytes", Bytes(limits.page_size_max_bytes)),
        ("metadata_size_max_bytes", Bytes(limits.metadata_size_max_bytes)),
        ("metadata_element_count_max", Count(limits.metadata_element_count_max)),
        ("metadata_depth_max", Count(limits.metadata_depth_max)),
        ("tag_count_max", Count(limits.tag_count_max)),
        ("tag_length_max_characters", Count(limits.tag_length_max_characters)),
        ("attachment_count_max", Count(limits.attachment_count_max)),
        ("batch_get_file_count_max", Count(limits.batch_get_file_count_max)),
        ("batch_delete_file_count_max", Count(limits.batch_delete_file_count_max)),
        ("find_imported_key_count_max", Count(limits.find_imported_key_count_max)),
        ("upload_idle_timeout", Time(limits.upload_idle_timeout)),
        ("upload_lifetime", Time(limits.upload_lifetime)),
        ("download_idle_timeout", Time(limits.download_idle_timeout)),
        ("watch_heartbeat_interval", Time(limits.watch_heartbeat_interval)),
        ("request_id_retention", Time(limits.request_id_retention)),
        ("event_retention", Time(limits.event_retention)),
    ]
}

fn name_features(features: ServiceFeatures) -> [(&'static str, bool); 5] {
    [
        ("direct_upload", features.direct_upload),
        ("edge", features.edge),
        ("tus", features.tus),
        ("scanning", features.scanning),
        ("variants", features.variants),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message;
    use prost_types::FileDescriptorSet;

    use super::*;
    use crate::proto;

    fn field_names(message: &str) -> BTreeSet<String> {
        let set = FileDescriptorSet::decode(proto::DESCRIPTOR_SET).unwrap();
        let messages = set.file.iter().flat_map(|file| &file.message_type);
        let found = messages.into_iter().find(|known| known.name() == message).unwrap();
        found.field.iter().map(|field| field.name().to_owned()).collect()
    }

    #[test]
    fn every_field_of_the_contract_is_printed() {
        let limits = name_limits(&ServiceLimits::default());
        let names: BTreeSet<String> = limits.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(names, field_names("ServiceLimits"));
        let features = name_features(ServiceFeatures::default());
        let names: BTreeSet<String> = features.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(names, field_names("ServiceFeatures"));
    }

    #[test]
    fn values_are_printed_with_their_units() {
        let text = |limit: Limit| limit.to_text();
        assert_eq!(text(Limit::Bytes(2 * 1024 * 1024)), "2.0 MiB");
        assert_eq!(text(Limit::Count(50)), "50");
        let minute = Some(Duration { seconds: 60, nanos: 0 });
        assert_eq!(text(Limit::Time(minute)), "60s");
        assert_eq!(Limit::Time(minute).to_json(), "60s");
        assert_eq!(Limit::Bytes(5).to_json(), 5);
    }
}
