//! Which bucket holds a key, and how buckets are made.

use std::{
    collections::HashSet,
    sync::{MutexGuard, PoisonError, atomic::Ordering},
};

use bytes::Bytes;
use http::{Method, StatusCode};

use super::{
    super::{InitOptions, InitOutcome, InitReport, InitStep, Payload, StorageError},
    client::{Answer, Call, Client},
    errors::Failure,
    lifecycle, xml,
};
use crate::domain::{ids::TenantId, object_key::ObjectKey};

/// How many tenants' buckets are remembered as made; forgetting costs one more question.
const BUCKETS_REMEMBERED_MAX: usize = 10_000;
/// Written and removed to see whether we may. It is no key of ours, so no listing shows it.
const CHECK_KEY: &str = "strongroom-check";
/// The region that a bucket is made in when nothing is said; saying it is an error there.
const REGION_OF_NO_CONSTRAINT: &str = "us-east-1";

impl Client {
    /// The bucket of a key.
    pub(super) fn bucket_of(&self, key: &ObjectKey) -> String {
        match self.options.bucket_per_tenant {
            true => self.bucket_of_tenant(key.tenant()),
            false => self.options.bucket.clone(),
        }
    }

    pub(super) fn bucket_of_tenant(&self, tenant: TenantId) -> String {
        format!("{}-{}", self.options.bucket, tenant.as_uuid().simple())
    }

    /// The buckets that there are, in the order of their tenants.
    pub(super) async fn buckets(&self) -> Result<Vec<String>, Failure> {
        if !self.options.bucket_per_tenant {
            return Ok(vec![self.options.bucket.clone()]);
        }
        let answer = self.send(Call::new(Method::GET, "", "")).await?;
        let list: xml::BucketList = xml::parse(&answer.body, "a list of buckets")?;
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
        match self.send(Call::new(Method::HEAD, bucket, "")).await {
            Ok(_) => Ok(true),
            Err(failure) if failure.status() == Some(StatusCode::NOT_FOUND) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Private, as buckets are unless somebody says otherwise.
    pub(super) async fn create_bucket(&self, bucket: &str) -> Result<(), Failure> {
        let region = &self.options.region;
        let body = match region.as_str() {
            REGION_OF_NO_CONSTRAINT => Payload::default(),
            _ => Payload::from(Bytes::from(format!(
                "<CreateBucketConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                 <LocationConstraint>{}</LocationConstraint></CreateBucketConfiguration>",
                xml::escape(region)
            ))),
        };
        match self.send(Call::new(Method::PUT, bucket, "").body(body)).await {
            Ok(_) => Ok(()),
            Err(failure) if failure.code() == "BucketAlreadyOwnedByYou" => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// Sends the first call of a new object, and before it makes the bucket of a new tenant. Asked beforehand,
    /// because a store that has no such bucket may hang up before it has read what we send.
    pub(super) async fn write(&self, call: Call) -> Result<Answer, Failure> {
        if !self.options.bucket_per_tenant {
            return self.send(call).await;
        }
        self.ensure_bucket(&call.bucket).await?;
        let bucket = call.bucket.clone();
        let answer = self.send(call).await;
        if answer.as_ref().is_err_and(|failure| failure.code() == "NoSuchBucket") {
            self.known_buckets().remove(&bucket);
        }
        answer
    }

    /// Makes the bucket of a new tenant.
    pub(super) async fn ensure_bucket(&self, bucket: &str) -> Result<(), Failure> {
        if self.options.bucket_per_tenant && !self.has_bucket(bucket).await? {
            self.create_bucket(bucket).await?;
            self.add_rule(bucket).await;
        }
        Ok(())
    }

    /// Only a second net: what comes first is never refused for want of it, and `storage init` adds it later.
    async fn add_rule(&self, bucket: &str) {
        let Some(days) = self.options.abandoned_multipart_days else { return };
        match lifecycle::ensure(self, bucket, days).await {
            Ok(InitOutcome::Unsupported(why)) => tracing::debug!(bucket, why, "no lifecycle rule"),
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(bucket, %error, "lifecycle rule not set; run `strongroom storage init`")
            }
        }
    }

    /// As `bucket_exists`, but remembers what is there.
    pub(super) async fn has_bucket(&self, bucket: &str) -> Result<bool, Failure> {
        if self.known_buckets().contains(bucket) {
            return Ok(true);
        }
        let exists = self.bucket_exists(bucket).await?;
        if exists {
            let mut known = self.known_buckets();
            if known.len() >= BUCKETS_REMEMBERED_MAX {
                known.clear();
            }
            known.insert(bucket.to_owned());
        }
        Ok(exists)
    }

    fn known_buckets(&self) -> MutexGuard<'_, HashSet<String>> {
        self.known_buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a 404 without a body, as HEAD gives it, is about a bucket that should be there.
    pub(super) async fn explain_absence(&self, failure: Failure, bucket: &str) -> Failure {
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

    /// Makes what is missing.
    pub(super) async fn initialise(&self, options: &InitOptions) -> Result<InitReport, StorageError> {
        let operation = "initialise store";
        let at = |failure: Failure| failure.into_error_of_store(operation);
        let mut steps = Vec::new();
        if !self.options.bucket_per_tenant {
            let bucket = &self.options.bucket;
            let outcome = match self.bucket_exists(bucket).await.map_err(at)? {
                true => InitOutcome::AlreadyThere,
                false => self.create_bucket(bucket).await.map(|()| InitOutcome::Done).map_err(at)?,
            };
            steps.push(InitStep { subject: format!("bucket {bucket}"), outcome });
        }
        let Some(days) = options.abort_incomplete_after_days else { return Ok(InitReport { steps }) };
        for bucket in self.buckets().await.map_err(at)? {
            let outcome = lifecycle::ensure(self, &bucket, days).await.map_err(at)?;
            let subject = format!("rule of bucket {bucket}: uploads older than {days} days are given up");
            steps.push(InitStep { subject, outcome });
        }
        Ok(InitReport { steps })
    }

    /// Whether we are let in; and once in a process, whether we may write.
    pub(super) async fn check(&self) -> Result<(), StorageError> {
        let operation = "check store";
        let at = |failure: Failure| failure.into_error_of_store(operation);
        if self.options.bucket_per_tenant {
            return self.buckets().await.map(|_| ()).map_err(at);
        }
        let bucket = &self.options.bucket;
        if self.has_written.load(Ordering::Relaxed) {
            return match self.bucket_exists(bucket).await.map_err(at)? {
                true => Ok(()),
                false => Err(at(Failure::bucket_missing())),
            };
        }
        for method in [Method::PUT, Method::DELETE] {
            self.send(Call::new(method, bucket, CHECK_KEY)).await.map_err(at)?;
        }
        self.has_written.store(true, Ordering::Relaxed);
        Ok(())
    }
}
