//! The gRPC health protocol, fed from what telemetry knows: overall and per service.

use tonic::server::NamedService;
use tonic_health::{ServingStatus, server::HealthReporter};

use super::{
    events::Events, files::Files, imports::Imports, policies::Policies, quotas::Quotas,
    service_info::ServiceInfos, tenants::Tenants, uploads::Uploads, webhooks::Webhooks,
};
use crate::{
    proto::{
        admin::v1::tenant_service_server::TenantServiceServer,
        v1::{
            event_service_server::EventServiceServer, file_service_server::FileServiceServer,
            import_service_server::ImportServiceServer, policy_service_server::PolicyServiceServer,
            quota_service_server::QuotaServiceServer, service_info_service_server::ServiceInfoServiceServer,
            upload_service_server::UploadServiceServer, webhook_service_server::WebhookServiceServer,
        },
    },
    telemetry::{Health, health::HealthState},
};

/// Overall, and every service: all of them need the database and the store.
const NAMES: [&str; 10] = [
    "",
    <FileServiceServer<Files> as NamedService>::NAME,
    <UploadServiceServer<Uploads> as NamedService>::NAME,
    <ImportServiceServer<Imports> as NamedService>::NAME,
    <EventServiceServer<Events> as NamedService>::NAME,
    <QuotaServiceServer<Quotas> as NamedService>::NAME,
    <PolicyServiceServer<Policies> as NamedService>::NAME,
    <TenantServiceServer<Tenants> as NamedService>::NAME,
    <WebhookServiceServer<Webhooks> as NamedService>::NAME,
    <ServiceInfoServiceServer<ServiceInfos> as NamedService>::NAME,
];

/// Says once how things are, before the first caller can ask.
pub(super) async fn begin(health: &Health) -> HealthReporter {
    let reporter = HealthReporter::new();
    tell(&reporter, &health.state()).await;
    reporter
}

/// Tells every change, for as long as this is polled.
pub(super) async fn follow(health: &Health, reporter: &HealthReporter) {
    let mut changes = health.subscribe();
    loop {
        let state = changes.borrow_and_update().clone();
        tell(reporter, &state).await;
        if changes.changed().await.is_err() {
            return;
        }
    }
}

async fn tell(reporter: &HealthReporter, state: &HealthState) {
    let status = if state.is_ready() { ServingStatus::Serving } else { ServingStatus::NotServing };
    for name in NAMES {
        reporter.set_service_status(name, status).await;
    }
}

#[cfg(test)]
mod tests {
    use tonic::Request;
    use tonic_health::{
        pb::{HealthCheckRequest, health_server::Health as _},
        server::HealthService,
    };

    use super::*;
    use crate::telemetry::health::Component;

    async fn check(reporter: &HealthReporter, name: &str) -> i32 {
        let request = Request::new(HealthCheckRequest { service: name.to_owned() });
        HealthService::from_health_reporter(reporter.clone()).check(request).await.unwrap().get_ref().status
    }

    #[tokio::test]
    async fn every_service_serves_while_everything_is_up_and_until_it_drains() {
        let (serving, not_serving) = (1, 2);
        let health = Health::new();
        let reporter = begin(&health).await;
        let mut following = std::pin::pin!(follow(&health, &reporter));
        assert_eq!(check(&reporter, "").await, not_serving);
        health.mark_up(Component::Database);
        health.mark_up(Component::Storage);
        assert!(futures::poll!(&mut following).is_pending());
        for name in NAMES {
            assert_eq!(check(&reporter, name).await, serving, "{name}");
        }
        health.start_draining();
        assert!(futures::poll!(&mut following).is_pending());
        assert_eq!(check(&reporter, "strongroom.v1.FileService").await, not_serving);
    }
}
