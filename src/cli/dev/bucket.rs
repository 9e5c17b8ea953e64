//! `strongroom dev --storage s3`: stores files in an S3-compatible bucket instead of a directory.

use clap::Args;
use serde::{Deserialize, Serialize};
use url::Url;

use super::super::{Failure, providers, system_clock_and_ids};
use crate::{
    app::storage::init::initialize_provider,
    config::{
        Config,
        provider::{ProviderConfig, S3Config},
    },
};

/// The name of the provider. A configuration file may set further options in `[storage.providers.s3]`.
const PROVIDER: &str = "s3";

/// The bucket to use. The credentials are read from `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct BucketArgs {
    /// With --storage s3: the endpoint of the store. Default: Amazon S3.
    #[arg(long, value_name = "URL", env = "STRONGROOM_DEV_S3_ENDPOINT", value_parser = check_url)]
    s3_endpoint: Option<String>,
    /// With --storage s3: the name of the bucket; it is created if it does not exist.
    #[arg(long, value_name = "NAME", env = "STRONGROOM_DEV_S3_BUCKET")]
    s3_bucket: Option<String>,
    /// With --storage s3: the region to sign requests for.
    #[arg(long, value_name = "NAME", env = "STRONGROOM_DEV_S3_REGION")]
    s3_region: Option<String>,
}

impl BucketArgs {
    /// Configures the bucket as the provider for new objects. Options that are not given keep their
    /// configured or default values.
    pub(super) fn configure(&self, config: &mut Config) -> Result<(), Failure> {
        let mut s3 = match config.storage.providers.remove(PROVIDER) {
            Some(ProviderConfig::S3(s3)) => *s3,
            _ => S3Config::defaults()?,
        };
        if let Some(endpoint) = &self.s3_endpoint {
            let endpoint: Url = endpoint.parse()?;
            s3.allow_http |= endpoint.scheme() == "http";
            s3.endpoint = Some(endpoint);
        }
        if let Some(bucket) = &self.s3_bucket {
            s3.bucket.clone_from(bucket);
        }
        if let Some(region) = &self.s3_region {
            s3.region.clone_from(region);
        }
        if s3.bucket.is_empty() {
            return Err("--storage s3 needs a bucket; pass --s3-bucket NAME".into());
        }
        config.storage.set_primary_provider(PROVIDER, ProviderConfig::S3(Box::new(s3)));
        Ok(())
    }
}

fn check_url(text: &str) -> Result<String, String> {
    text.parse::<Url>().map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// Initializes the bucket, as `strongroom storage init` does.
pub(super) async fn initialize_bucket(config: &Config) -> Result<(), Failure> {
    let (clock, ids) = system_clock_and_ids();
    let stores = providers::open_stores(&config.storage, &clock, &ids)?;
    let options = providers::init_options(&config.storage, PROVIDER);
    for step in initialize_provider(stores.primary().as_ref(), &options).await?.steps {
        tracing::info!(subject = step.subject, outcome = ?step.outcome, "initialized bucket");
    }
    Ok(())
}
