//! Against Garage: the promises of the port, and what it verifies.

use std::sync::Arc;

use strongroom::{
    domain::clock::SystemIds,
    storage::{
        PayloadSigning, S3Options,
        conformance::conformance,
        flaky::{Flaky, Plan},
        retried,
    },
};

use crate::settings::{bare, garage, stack};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garage_keeps_the_promises() {
    conformance(bare(garage()), Arc::new(SystemIds)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garage_keeps_the_promises_with_unsigned_payloads_and_a_checksum() {
    let options = S3Options { payload_signing: PayloadSigning::Never, ..garage() };
    conformance(bare(options), Arc::new(SystemIds)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_keep_the_promises_of_a_garage_that_fails_one_call_in_ten() {
    let flaky = Flaky::new(bare(garage()), Plan::new().random(7, 10));
    let store = retried(flaky, &stack(garage(), 12), Arc::new(SystemIds));
    conformance(store, Arc::new(SystemIds)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_for_each_tenant_keeps_the_promises() {
    conformance(bare(S3Options { bucket_per_tenant: true, ..garage() }), Arc::new(SystemIds)).await;
}
