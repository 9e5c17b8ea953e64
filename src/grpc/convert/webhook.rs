//! Webhooks and their failed deliveries.

use std::mem;

use super::{id, time, watch};
use crate::{
    app::webhooks::{Delivery, update::WebhookUpdate},
    domain::{
        event_position::EventPosition,
        ids::{RequestId, WebhookId},
        violations::Violations,
        webhook::{DeliveryState, Webhook, WebhookChange, WebhookState},
    },
    proto::v1,
};

/// More fields than can be changed.
const PATHS_MAX: usize = 16;

/// What a new endpoint is to be.
pub(in crate::grpc) fn create(
    request: v1::CreateWebhookRequest,
) -> Result<(WebhookChange, Option<RequestId>), Violations> {
    let mut wrong = Violations::new();
    let request_id = id::request_id(&request.request_id, &mut wrong);
    let mut webhook = request.webhook.unwrap_or_default();
    let mut change = WebhookChange::default();
    for path in ["description", "kinds"] {
        set(&mut change, path, &mut webhook, &mut wrong);
    }
    change.url = (!webhook.url.is_empty()).then(|| mem::take(&mut webhook.url));
    if webhook.state() != v1::WebhookState::Unspecified || webhook.state != 0 {
        set(&mut change, "state", &mut webhook, &mut wrong);
    }
    wrong.into_result().map(|()| (change, request_id))
}

/// Everything that an update asks for.
pub(in crate::grpc) fn update(request: v1::UpdateWebhookRequest) -> Result<WebhookUpdate, Violations> {
    let mut wrong = Violations::new();
    let request_id = id::request_id(&request.request_id, &mut wrong);
    let paths = request.update_mask.unwrap_or_default().paths;
    if paths.is_empty() || paths.len() > PATHS_MAX {
        wrong.add("update_mask", format!("must name 1 to {PATHS_MAX} fields"));
        return Err(wrong);
    }
    let mut webhook = request.webhook.unwrap_or_default();
    let id = wrong.ok_or_add("webhook.id", webhook.id.parse::<WebhookId>().map_err(|_| "must be a UUID"));
    let mut change = WebhookChange::default();
    for (place, path) in paths.iter().enumerate() {
        let field = format!("update_mask.paths[{place}]");
        if paths[..place].contains(path) {
            wrong.add(field, "stands twice");
        } else if !set(&mut change, path, &mut webhook, &mut wrong) {
            wrong.add(field, "must be one of url, description, kinds, state");
        }
    }
    match id {
        Some(id) if wrong.is_empty() => {
            Ok(WebhookUpdate { id, change, if_etag: request.if_etag, request_id })
        }
        _ => Err(wrong),
    }
}

/// Takes the field at `path` over; false where there is none to be set.
fn set(change: &mut WebhookChange, path: &str, webhook: &mut v1::Webhook, wrong: &mut Violations) -> bool {
    match path {
        "url" => change.url = Some(mem::take(&mut webhook.url)),
        "description" => change.description = Some(mem::take(&mut webhook.description)),
        "kinds" => {
            let kinds = watch::kinds("webhook.kinds", &webhook.kinds, wrong);
            change.kinds = Some(kinds.into_iter().map(|kind| kind.number()).collect());
        }
        "state" => {
            let known =
                WebhookState::ALL.iter().copied().find(|known| i32::from(state(*known)) == webhook.state);
            change.state = wrong.ok_or_add("webhook.state", known.ok_or("must be ACTIVE or PAUSED"));
        }
        _ => return false,
    }
    true
}

/// An endpoint's id.
pub(in crate::grpc) fn named(id: &str) -> Result<WebhookId, Violations> {
    id.parse().map_err(|_| Violations::one("webhook_id", "must be a UUID"))
}

/// An endpoint's id and a request id.
pub(in crate::grpc) fn change(
    webhook_id: &str,
    request_id: &str,
) -> Result<(WebhookId, Option<RequestId>), Violations> {
    let mut wrong = Violations::new();
    let named = wrong.ok_or_add("webhook_id", webhook_id.parse::<WebhookId>().map_err(|_| "must be a UUID"));
    let request_id = id::request_id(request_id, &mut wrong);
    match named {
        Some(named) => wrong.into_result().map(|()| (named, request_id)),
        None => Err(wrong),
    }
}

/// Which dead letter to send again.
pub(in crate::grpc) fn redelivery(
    request: &v1::RedeliverWebhookRequest,
) -> Result<((WebhookId, EventPosition), Option<RequestId>), Violations> {
    let mut wrong = Violations::new();
    let at = wrong.ok_or_add("position", request.position.parse::<EventPosition>());
    match (change(&request.webhook_id, &request.request_id), at) {
        (Ok((id, request_id)), Some(at)) => Ok(((id, at), request_id)),
        (Err(mut more), _) => {
            for violation in wrong.iter() {
                more.add(violation.field.clone(), violation.description.clone());
            }
            Err(more)
        }
        (Ok(_), None) => Err(wrong),
    }
}

/// An endpoint as callers read it.
pub(in crate::grpc) fn shown(webhook: Webhook) -> v1::Webhook {
    v1::Webhook {
        id: webhook.id.to_string(),
        url: webhook.url,
        description: webhook.description,
        kinds: watch::kinds_to_wire(&webhook.kinds),
        state: state(webhook.state).into(),
        state_reason: webhook.state_reason,
        position: webhook.position.to_string(),
        failed_attempt_count: webhook.failed_attempts.into(),
        last_error: webhook.last_error,
        next_attempt_time: Some(time::to_wire(webhook.next_attempt_time)),
        created_by: webhook.created_by,
        create_time: Some(time::to_wire(webhook.create_time)),
        update_time: Some(time::to_wire(webhook.update_time)),
        etag: webhook.revision.to_string(),
    }
}

const fn state(state: WebhookState) -> v1::WebhookState {
    match state {
        WebhookState::Active => v1::WebhookState::Active,
        WebhookState::Paused => v1::WebhookState::Paused,
        WebhookState::Disabled => v1::WebhookState::Disabled,
    }
}

/// A failed delivery as callers read it.
pub(in crate::grpc) fn delivery(delivery: Delivery) -> v1::WebhookDelivery {
    let state = match delivery.state {
        DeliveryState::Dead => v1::WebhookDeliveryState::Dead,
        DeliveryState::Waiting => v1::WebhookDeliveryState::Waiting,
        DeliveryState::Delivered => v1::WebhookDeliveryState::Delivered,
    };
    v1::WebhookDelivery {
        position: delivery.event.position.to_string(),
        kind: watch::kind(delivery.event.kind).into(),
        file_id: delivery.event.file.to_string(),
        version: delivery.event.version,
        event_time: Some(time::to_wire(delivery.event.create_time)),
        state: state.into(),
        attempt_count: delivery.attempts.into(),
        last_error: delivery.last_error,
        create_time: Some(time::to_wire(delivery.create_time)),
        update_time: Some(time::to_wire(delivery.update_time)),
    }
}
