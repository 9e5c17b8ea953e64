//! Maps keys to buckets, and creates buckets.

use std::{
    collections::HashSet,
    sync::{MutexGuard, PoisonError, atomic::Ordering},
};

use bytes::Bytes;
use http::{Method, StatusCode};

use super::{
    super::{InitOptions, InitOutcome, InitReport, InitStep, Payload, StorageError},
    client::{Client, CollectedResponse, Request},
    errors::Failure,
    lifecycle, versions, xml,
};
use crate::domain::{ids::TenantId, object_key::ObjectKey};

/// The number of tenant buckets cached as existing. Clearing the cache costs one more request per bucket.
const KNOWN_BUCKETS_MAX: usize = 10_000;
/// The key written and deleted to check write access. It is not an `ObjectKey`, so listings skip it.
const CHECK_KEY: &str = "strongroom-check";
/// The default region for new buckets. S3 rejects it as an explicit location constraint.
const DEFAULT_REGION: &str = "us-east-1";

impl Client {
    /// Returns the bucket of a key.
    pub(super) fn bucket_of(&self, key: &ObjectKey) -> String {
        match self.options.bucket_per_tenant {
            true => self.bucket_of_tenant(key.tenant()),
            false => self.options.bucket.clone(),
        }
    }

    pub(super) fn bucket_of_tenant(&self, tenant: TenantId) -> String {
        format!("{}-{}", self.options.bucket, tenant.as_uuid().simple())
    }

    /// Lists the existing buckets of this service in the order of their tenants.
    pub(super) async fn list_buckets(&self) -> Result<Vec<String>, Failure> {
        if !self.options.bucket_per_tenant {
            return Ok(vec![self.options.bucket.clone()]);
        }
        let response = self.send(Request::new(Method::GET, "", "")).await?;
        let list: xml::BucketList = xml::parse(&response.body, "malformed list of buckets")?;
        let ours = |name: &String| {
            let tail = name.strip_prefix(&self.options.bucket).and_then(|tail| tail.strip_prefix('-'));
            tail.is_some_and(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
        };
        let mut names: Vec<_> =
            list.buckets.bucket.into_iter().map(|bucket| bucket.name).filter(ours).collect();
        names.sort_unstable();
        Ok(names)
    }

    pub(super) async fn bucket_exists(&self, bucket: &str) -> Result<bool, Failure> {
        match self.send(Request::new(Method::HEAD, bucket, "")).await {
            Ok(_) => Ok(true),
            Err(failure) if failure.status() == Some(StatusCode::NOT_FOUND) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Creates a bucket. New buckets are private by default.
    pub(super) async fn create_bucket(&self, bucket: &str) -> Result<(), Failure> {
        let region = &self.options.region;
        let body = match region.as_str() {
            DEFAULT_REGION => Payload::default(),
            _ => Payload::from(Bytes::from(format!(
                "<CreateBucketConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                 <LocationConstraint>{}</LocationConstraint></CreateBucketConfiguration>",
                xml::escape(region)
            ))),
        };
        match self.send(Request::new(Method::PUT, bucket, "").body(body)).await {
            Ok(_) => Ok(()),
            Err(failure) if failure.code() == "BucketAlreadyOwnedByYou" => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// Sends the first request of a new object, after creating the bucket of a new tenant if necessary. The
    /// bucket is checked first, because a store may close the connection before it has read the body if the
    /// bucket does not exist.
    pub(super) async fn write(&self, request: Request) -> Result<CollectedResponse, Failure> {
        if !self.options.bucket_per_tenant {
            return self.send(request).await;
        }
        self.ensure_bucket(&request.bucket).await?;
        let bucket = request.bucket.clone();
        let response = self.send(request).await;
        if response.as_ref().is_err_and(|failure| failure.code() == "NoSuchBucket") {
            self.known_buckets().remove(&bucket);
        }
        response
    }

    /// Creates the bucket of a new tenant if it does not exist.
    pub(super) async fn ensure_bucket(&self, bucket: &str) -> Result<(), Failure> {
        if self.options.bucket_per_tenant && !self.has_bucket(bucket).await? {
            self.create_bucket(bucket).await?;
            self.add_lifecycle_rule(bucket).await;
        }
        Ok(())
    }

    /// Adds the lifecycle rule to a new bucket. The rule is only a safeguard, so a failure does not fail the
    /// write, and `strongroom storage init` can add it later.
    async fn add_lifecycle_rule(&self, bucket: &str) {
        let Some(days) = self.options.abandoned_multipart_days else { return };
        match lifecycle::ensure_abort_rule(self, bucket, days).await {
            Ok(InitOutcome::Unsupported(reason)) => {
                tracing::debug!(bucket, reason, "the store does not support lifecycle rules")
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(bucket, %error, "failed to set lifecycle rule; run `strongroom storage init`")
            }
        }
    }

    /// Returns whether a bucket exists, and caches positive results.
    pub(super) async fn has_bucket(&self, bucket: &str) -> Result<bool, Failure> {
        if self.known_buckets().contains(bucket) {
            return Ok(true);
        }
        let exists = self.bucket_exists(bucket).await?;
        if exists {
            let mut known = self.known_buckets();
            if known.len() >= KNOWN_BUCKETS_MAX {
                known.clear();
            }
            known.insert(bucket.to_owned());
        }
        Ok(exists)
    }

    fn known_buckets(&self) -> MutexGuard<'_, HashSet<String>> {
        self.known_buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds out whether a 404 without a body, as returned for HEAD, means that the bucket is missing.
    pub(super) async fn resolve_not_found(&self, failure: Failure, bucket: &str) -> Failure {
        let is_bare = failure.status() == Some(StatusCode::NOT_FOUND) && failure.code().is_empty();
        if !is_bare || self.options.bucket_per_tenant {
            return failure;
        }
        match self.bucket_exists(bucket).await {
            Ok(true) => failure,
            Ok(false) => Failure::bucket_missing(),
            Err(failure) => failure,
        }
    }

    /// Creates missing buckets and lifecycle rules.
    pub(super) async fn initialize(&self, options: &InitOptions) -> Result<InitReport, StorageError> {
        let operation = "initialize store";
        let at = |failure: Failure| failure.into_store_error(operation);
        let mut steps = Vec::new();
        if !self.options.bucket_per_tenant {
            let bucket = &self.options.bucket;
            let outcome = match self.bucket_exists(bucket).await.map_err(at)? {
                true => InitOutcome::AlreadyExists,
                false => self.create_bucket(bucket).await.map(|()| InitOutcome::Done).map_err(at)?,
            };
            steps.push(InitStep { subject: format!("bucket {bucket}"), outcome });
        }
        for bucket in self.list_buckets().await.map_err(at)? {
            if let Some(days) = options.abort_incomplete_after_days {
                let outcome = lifecycle::ensure_abort_rule(self, &bucket, days).await.map_err(at)?;
                let subject =
                    format!("lifecycle rule of bucket {bucket}: abort uploads older than {days} days");
                steps.push(InitStep { subject, outcome });
            }
            if let Some(protection) = versions::find_protection(self, bucket).await.map_err(at)? {
                let subject = format!("deletions in bucket {}", protection.bucket);
                steps.push(InitStep { subject, outcome: InitOutcome::Noted(protection.to_string()) });
            }
        }
        Ok(InitReport { steps })
    }

    /// Checks access to the store. Also checks write access until that has succeeded once in this process.
    pub(super) async fn check(&self) -> Result<(), StorageError> {
        let operation = "check store";
        let at = |failure: Failure| failure.into_store_error(operation);
        if self.options.bucket_per_tenant {
            return self.list_buckets().await.map(|_| ()).map_err(at);
        }
        let bucket = &self.options.bucket;
        if self.has_written.load(Ordering::Relaxed) {
            return match self.bucket_exists(bucket).await.map_err(at)? {
                true => Ok(()),
                false => Err(at(Failure::bucket_missing())),
            };
        }
        for method in [Method::PUT, Method::DELETE] {
            self.send(Request::new(method, bucket, CHECK_KEY)).await.map_err(at)?;
        }
        self.has_written.store(true, Ordering::Relaxed);
        Ok(())
    }
}
