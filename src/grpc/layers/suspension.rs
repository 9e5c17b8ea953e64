//! Ends the streams of a tenant that is suspended or deleted while they run.
//!
//! Uploads and parts of them end before their response, and downloads, watches and imports in the middle of it.
//! Other calls are short: their deadline ends them.

use std::sync::Arc;

use http::{Request, Response};
use tonic::body::Body;

use super::{Around, Inner, Next, deadline::end_with};
use crate::{
    app::{App, Principal, tenants::wait_until_suspended},
    grpc::{
        call::{FirstCall, request_origin},
        message_limits::PART_METHOD,
        status,
    },
};

/// Ends the streams of suspended tenants. Inside the authentication, which determines the tenant.
#[derive(Clone)]
pub(in crate::grpc) struct Suspension(pub(in crate::grpc) Arc<App>);

const UPLOAD: &str = "/strongroom.v1.FileService/UploadFile";

/// Whether a method receives a message or messages for any time, and then responds with one.
fn is_upload(path: &str) -> bool {
    matches!(path, UPLOAD | PART_METHOD)
}

/// Whether a method receives or sends for any time on behalf of a member of a tenant.
fn is_long(path: &str) -> bool {
    matches!(
        path,
        UPLOAD
            | PART_METHOD
            | "/strongroom.v1.FileService/DownloadFile"
            | "/strongroom.v1.EventService/WatchFiles"
            | "/strongroom.v1.ImportService/ImportFiles"
    )
}

impl Around for Suspension {
    async fn around<S: Inner>(&self, request: Request<Body>, next: Next<S>) -> Response<Body> {
        let extensions = request.extensions();
        let first = extensions.get::<FirstCall>().map(FirstCall::created);
        let known = match extensions.get::<Principal>() {
            Some(Principal::Caller(caller)) => Some(caller.tenant_id()),
            Some(Principal::Operator(_)) | None => None,
        };
        if !is_long(request.uri().path()) || (known.is_none() && first.is_none()) {
            return next.run(request).await;
        }
        let app = Arc::clone(&self.0);
        let is_upload = is_upload(request.uri().path());
        let call_id = request_origin(request.extensions()).call_id;
        let mut end = Box::pin(async move {
            let tenant = match (known, first) {
                (Some(tenant), _) => tenant,
                (None, Some(first)) => first.await,
                (None, None) => std::future::pending().await,
            };
            let error = wait_until_suspended(&app, tenant).await;
            status::status(&error, &call_id)
        });
        let response = tokio::select! {
            biased;
            response = next.run(request) => response,
            status = &mut end => return status.into_http(),
        };
        // The response of an upload is one message, which is ready.
        if is_upload {
            return response;
        }
        response.map(|body| end_with(body, end))
    }
}
