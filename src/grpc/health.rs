//! The gRPC health protocol: reports the health state of the telemetry for the server and for each service.

use tonic::server::NamedService;
use tonic_health::{ServingStatus, server::HealthReporter};

use super::{
    events::Events, files::Files, imports::Imports, policies::Policies, quotas::Quotas,
    service_info::ServiceInfos, shares::Shares, tenants::Tenants, uploads::Uploads, webhooks::Webhooks,
};
use crate::{
    proto::{
        admin::v1::tenant_service_server::TenantServiceServer,
        v1::{
            event_service_server::EventServiceServer, file_service_server::FileServiceServer,
            import_service_server::ImportServiceServer, policy_service_server::PolicyServiceServer,
            quota_service_server::QuotaServiceServer, service_info_service_server::ServiceInfoServiceServer,
            share_service_server::ShareServiceServer, upload_service_server::UploadServiceServer,
            webhook_service_server::WebhookServiceServer,
        },
    },
    telemetry::{Health, health::HealthState},
};

/// The names that have a status: the server (the empty name) and each service. All have the same status,
/// because all services need the database and the object store.
const SERVICE_NAMES: [&str; 11] = [
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
    <ShareServiceServer<Shares> as NamedService>::NAME,
];

/// Creates a reporter with the current status, so that the first health check finds it.
pub(super) async fn create_reporter(health: &Health) -> HealthReporter {
    let reporter = HealthReporter::new();
    report_state(&reporter, &health.state()).await;
    reporter
}

/// Reports changes to the health state while the returned future is polled.
pub(super) async fn report_changes(health: &Health, reporter: &HealthReporter) {
    let mut changes = health.subscribe();
    loop {
        let state = changes.borrow_and_update().clone();
        report_state(reporter, &state).await;
        if changes.changed().await.is_err() {
            return;
        }
    }
}

async fn report_state(reporter: &HealthReporter, state: &HealthState) {
    let status = if state.is_ready() { ServingStatus::Serving } else { ServingStatus::NotServing };
    for name in SERVICE_NAMES {
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
    async fn services_serve_while_components_are_up_until_draining() {
        let (serving, not_serving) = (1, 2);
        let health = Health::new();
        let reporter = create_reporter(&health).await;
        let mut reporting = std::pin::pin!(report_changes(&health, &reporter));
        assert_eq!(check(&reporter, "").await, not_serving);
        health.mark_up(Component::Database);
        health.mark_up(Component::Storage);
        assert!(futures::poll!(&mut reporting).is_pending());
        for name in SERVICE_NAMES {
            assert_eq!(check(&reporter, name).await, serving, "{name}");
        }
        health.start_draining();
        assert!(futures::poll!(&mut reporting).is_pending());
        assert_eq!(check(&reporter, "strongroom.v1.FileService").await, not_serving);
    }
}
