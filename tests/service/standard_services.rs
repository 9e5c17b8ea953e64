//! The standard gRPC services: health and reflection.

use futures::stream;
use strongroom::telemetry::health::Component;
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::harness::{service_test, service_test_with};

#[test]
fn health_reports_each_service_without_credentials() {
    service_test(|s| async move {
        let mut health = HealthClient::new(s.channel.clone());
        let ask = |service: &str| HealthCheckRequest { service: service.to_owned() };
        let names =
            ["", "strongroom.v1.FileService", "strongroom.v1.QuotaService", "strongroom.v1.WebhookService"];
        for (is_up, status) in [(false, 2), (true, 1)] {
            for component in [Component::Database, Component::Storage] {
                if is_up { s.health.mark_up(component) } else { s.health.mark_down(component, "unreachable") }
            }
            for name in names {
                s.wait_until("the health status changes", || {
                    let mut health = health.clone();
                    async move { health.check(ask(name)).await.unwrap().into_inner().status == status }
                })
                .await;
            }
        }
        assert_eq!(health.check(ask("nonsense")).await.unwrap_err().code(), Code::NotFound);
    });
}

#[test]
fn reflection_lists_services_if_enabled() {
    for is_enabled in [true, false] {
        service_test_with(
            |config| config.server.reflection = is_enabled,
            |s| async move {
                let mut reflection = ServerReflectionClient::new(s.channel.clone());
                let ask = ServerReflectionRequest {
                    message_request: Some(MessageRequest::ListServices(String::new())),
                    ..Default::default()
                };
                let response = reflection.server_reflection_info(stream::iter([ask])).await;
                if !is_enabled {
                    assert_eq!(response.unwrap_err().code(), Code::Unimplemented);
                    return;
                }
                let first = response.unwrap().into_inner().message().await.unwrap().unwrap();
                let Some(MessageResponse::ListServicesResponse(list)) = first.message_response else {
                    panic!("{first:?}")
                };
                let names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
                for name in [
                    "strongroom.v1.FileService",
                    "strongroom.v1.UploadService",
                    "strongroom.v1.ImportService",
                    "strongroom.v1.EventService",
                    "strongroom.v1.QuotaService",
                    "strongroom.v1.PolicyService",
                    "strongroom.v1.WebhookService",
                    "strongroom.v1.ServiceInfoService",
                    "strongroom.admin.v1.TenantService",
                    "grpc.health.v1.Health",
                ] {
                    assert!(names.iter().any(|listed| listed == name), "{name} in {names:?}");
                }
            },
        );
    }
}
