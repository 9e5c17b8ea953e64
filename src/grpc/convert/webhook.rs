//! Conversions of webhooks and their failed deliveries.

use std::mem;

use super::{id, time, watch};
use crate::{
    app::webhooks::{Delivery, WebhookUpdate},
    domain::{
        event_position::EventPosition,
        ids::{RequestId, WebhookId},
        violations::Violations,
        webhook::{DeliveryState, Webhook, WebhookChange, WebhookState},
    },
    proto::v1,
};

/// The maximum number of paths in an update mask. A webhook has fewer fields that can change.
const PATHS_MAX: usize = 16;

/// A request to create a webhook.
#[derive(Debug)]
pub(in crate::grpc) struct CreateRequest {
    /// The fields of the new webhook.
    pub(in crate::grpc) change: WebhookChange,
    pub(in crate::grpc) request_id: Option<RequestId>,
}

pub(in crate::grpc) fn create_request_from_proto(
    request: v1::CreateWebhookRequest,
) -> Result<CreateRequest, Violations> {
    let mut violations = Violations::new();
    let request_id = id::parse_request_id(&request.request_id, &mut violations);
    let mut webhook = request.webhook.unwrap_or_default();
    let mut change = WebhookChange::default();
    for path in ["description", "kinds"] {
        set_field(&mut change, path, &mut webhook, &mut violations);
    }
    change.url = (!webhook.url.is_empty()).then(|| mem::take(&mut webhook.url));
    if webhook.state() != v1::WebhookState::Unspecified || webhook.state != 0 {
        set_field(&mut change, "state", &mut webhook, &mut violations);
    }
    violations.into_result().map(|()| CreateRequest { change, request_id })
}

pub(in crate::grpc) fn update_request_from_proto(
    request: v1::UpdateWebhookRequest,
) -> Result<WebhookUpdate, Violations> {
    let mut violations = Violations::new();
    let request_id = id::parse_request_id(&request.request_id, &mut violations);
    let paths = request.update_mask.unwrap_or_default().paths;
    if paths.is_empty() || paths.len() > PATHS_MAX {
        violations.add("update_mask", format!("must name 1 to {PATHS_MAX} fields"));
        return Err(violations);
    }
    let mut webhook = request.webhook.unwrap_or_default();
    let id =
        violations.ok_or_add("webhook.id", webhook.id.parse::<WebhookId>().map_err(|_| "must be a UUID"));
    let mut change = WebhookChange::default();
    for (index, path) in paths.iter().enumerate() {
        let field = format!("update_mask.paths[{index}]");
        if paths[..index].contains(path) {
            violations.add(field, "is repeated");
        } else if !set_field(&mut change, path, &mut webhook, &mut violations) {
            violations.add(field, "must be one of url, description, kinds, state");
        }
    }
    match id {
        Some(id) if violations.is_empty() => {
            Ok(WebhookUpdate { id, change, if_etag: request.if_etag, request_id })
        }
        _ => Err(violations),
    }
}

/// Copies the field at `path` to the change. Returns false if no such field can be set.
fn set_field(
    change: &mut WebhookChange,
    path: &str,
    webhook: &mut v1::Webhook,
    violations: &mut Violations,
) -> bool {
    match path {
        "url" => change.url = Some(mem::take(&mut webhook.url)),
        "description" => change.description = Some(mem::take(&mut webhook.description)),
        "kinds" => {
            let kinds = watch::event_kinds_from_proto("webhook.kinds", &webhook.kinds, violations);
            change.kinds = Some(kinds.into_iter().map(|kind| kind.number()).collect());
        }
        "state" => {
            let known = WebhookState::ALL
                .iter()
                .copied()
                .find(|known| i32::from(state_to_proto(*known)) == webhook.state);
            change.state = violations.ok_or_add("webhook.state", known.ok_or("must be ACTIVE or PAUSED"));
        }
        _ => return false,
    }
    true
}

pub(in crate::grpc) fn parse_webhook_id(id: &str) -> Result<WebhookId, Violations> {
    id.parse().map_err(|_| Violations::one("webhook_id", "must be a UUID"))
}

/// The ids of a change to a webhook.
#[derive(Debug)]
pub(in crate::grpc) struct WebhookChangeIds {
    pub(in crate::grpc) webhook: WebhookId,
    pub(in crate::grpc) request: Option<RequestId>,
}

pub(in crate::grpc) fn parse_webhook_change(
    webhook_id: &str,
    request_id: &str,
) -> Result<WebhookChangeIds, Violations> {
    let mut violations = Violations::new();
    let webhook =
        violations.ok_or_add("webhook_id", webhook_id.parse::<WebhookId>().map_err(|_| "must be a UUID"));
    let request = id::parse_request_id(request_id, &mut violations);
    match webhook {
        Some(webhook) => violations.into_result().map(|()| WebhookChangeIds { webhook, request }),
        None => Err(violations),
    }
}

/// A request to deliver an event again.
#[derive(Debug)]
pub(in crate::grpc) struct RedeliverRequest {
    pub(in crate::grpc) ids: WebhookChangeIds,
    /// The position of the event.
    pub(in crate::grpc) position: EventPosition,
}

pub(in crate::grpc) fn redeliver_request_from_proto(
    request: &v1::RedeliverWebhookRequest,
) -> Result<RedeliverRequest, Violations> {
    let mut violations = Violations::new();
    let position = violations.ok_or_add("position", request.position.parse::<EventPosition>());
    match (parse_webhook_change(&request.webhook_id, &request.request_id), position) {
        (Ok(ids), Some(position)) => Ok(RedeliverRequest { ids, position }),
        (Err(mut more), _) => {
            for violation in violations.iter() {
                more.add(violation.field.clone(), violation.description.clone());
            }
            Err(more)
        }
        (Ok(_), None) => Err(violations),
    }
}

pub(in crate::grpc) fn to_proto(webhook: Webhook) -> v1::Webhook {
    v1::Webhook {
        id: webhook.id.to_string(),
        url: webhook.url,
        description: webhook.description,
        kinds: watch::event_kinds_to_proto(&webhook.kinds),
        state: state_to_proto(webhook.state).into(),
        state_reason: webhook.state_reason,
        position: webhook.position.to_string(),
        failed_attempt_count: webhook.failed_attempts.into(),
        last_error: webhook.last_error,
        next_attempt_time: Some(time::to_proto(webhook.next_attempt_time)),
        created_by: webhook.created_by,
        create_time: Some(time::to_proto(webhook.create_time)),
        update_time: Some(time::to_proto(webhook.update_time)),
        etag: webhook.revision.to_string(),
    }
}

const fn state_to_proto(state: WebhookState) -> v1::WebhookState {
    match state {
        WebhookState::Active => v1::WebhookState::Active,
        WebhookState::Paused => v1::WebhookState::Paused,
        WebhookState::Disabled => v1::WebhookState::Disabled,
    }
}

pub(in crate::grpc) fn delivery_to_proto(delivery: Delivery) -> v1::WebhookDelivery {
    let state = match delivery.state {
        DeliveryState::Dead => v1::WebhookDeliveryState::Dead,
        DeliveryState::Waiting => v1::WebhookDeliveryState::Waiting,
        DeliveryState::Delivered => v1::WebhookDeliveryState::Delivered,
    };
    let watch::SubjectFields { file_id, version, webhook_id, quota_alert_id, .. } =
        delivery.event.subject.into();
    v1::WebhookDelivery {
        position: delivery.event.position.to_string(),
        kind: watch::event_kind_to_proto(delivery.event.kind).into(),
        file_id,
        version,
        revision: delivery.event.revision,
        webhook_id,
        quota_alert_id,
        event_time: Some(time::to_proto(delivery.event.create_time)),
        state: state.into(),
        attempt_count: delivery.attempts.into(),
        last_error: delivery.last_error,
        create_time: Some(time::to_proto(delivery.create_time)),
        update_time: Some(time::to_proto(delivery.update_time)),
    }
}
