//! `strongroom dev --storage s3`: a bucket of any S3-compatible store instead of a directory.

use clap::Args;
use url::Url;

use super::super::{Failure, ambient, providers};
use crate::{
    app::storage::init::initialise,
    config::{
        Config,
        provider::{ProviderConfig, S3Config},
    },
};

/// The name of the provider, which `[storage.providers.s3]` of a configuration file may describe further.
const PROVIDER: &str = "s3";

/// Which bucket. Whoever signs stands in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
#[derive(Debug, Args)]
pub(super) struct BucketArgs {
    /// With `--storage s3`: the address of the store; Amazon's own when it is not given
    #[arg(long, value_name = "URL", env = "STRONGROOM_DEV_S3_ENDPOINT")]
    s3_endpoint: Option<Url>,
    /// With `--storage s3`: the bucket, which is made if it is not there
    #[arg(long, value_name = "NAME", env = "STRONGROOM_DEV_S3_BUCKET")]
    s3_bucket: Option<String>,
    /// With `--storage s3`: the region that requests are signed for
    #[arg(long, value_name = "NAME", env = "STRONGROOM_DEV_S3_REGION")]
    s3_region: Option<String>,
}

impl BucketArgs {
    /// Makes the bucket the place of new bytes. What the arguments do not say is as configured, or else as by default.
    pub(super) fn configure(&self, config: &mut Config) -> Result<(), Failure> {
        let mut s3 = match config.storage.providers.remove(PROVIDER) {
            Some(ProviderConfig::S3(s3)) => *s3,
            _ => S3Config::defaults()?,
        };
        if let Some(endpoint) = &self.s3_endpoint {
            s3.allow_http |= endpoint.scheme() == "http";
            s3.endpoint = Some(endpoint.clone());
        }
        if let Some(bucket) = &self.s3_bucket {
            s3.bucket.clone_from(bucket);
        }
        if let Some(region) = &self.s3_region {
            s3.region.clone_from(region);
        }
        if s3.bucket.is_empty() {
            return Err("`--storage s3` needs a bucket: give --s3-bucket".into());
        }
        config.storage.write_to(PROVIDER, ProviderConfig::S3(Box::new(s3)));
        Ok(())
    }
}

/// What `strongroom storage init` does.
pub(super) async fn make_ready(config: &Config) -> Result<(), Failure> {
    let (clock, ids) = ambient();
    let stores = providers::open_stores(&config.storage, &clock, &ids)?;
    let options = providers::init_options(&config.storage, PROVIDER);
    for step in initialise(stores.writing().as_ref(), &options).await?.steps {
        tracing::info!(subject = step.subject, outcome = ?step.outcome, "bucket");
    }
    Ok(())
}
