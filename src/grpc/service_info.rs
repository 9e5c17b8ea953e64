//! `ServiceInfoService`: decode, call the use case, encode.

use std::sync::Arc;

use tonic::{Request, Response, Status, async_trait};

use super::{
    call::{extract_principal, respond},
    convert::service_info::to_proto,
};
use crate::{
    app::{
        App,
        service_info::{TransportLimits, get_service_info},
    },
    proto::v1::{
        GetServiceInfoRequest, GetServiceInfoResponse, service_info_service_server::ServiceInfoService,
    },
};

/// The adapter of the service information service.
pub(super) struct ServiceInfos {
    pub(super) app: Arc<App>,
    pub(super) transport: TransportLimits,
}

#[async_trait]
impl ServiceInfoService for ServiceInfos {
    async fn get_service_info(
        &self,
        request: Request<GetServiceInfoRequest>,
    ) -> Result<Response<GetServiceInfoResponse>, Status> {
        let (principal, origin, _) = extract_principal(request)?;
        respond(&origin, async {
            let info = get_service_info(&self.app, &principal, self.transport);
            Ok(GetServiceInfoResponse { service_info: Some(to_proto(info)) })
        })
        .await
    }
}
