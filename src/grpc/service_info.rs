//! `ServiceInfoService`: decode, call the use case, encode.

use std::sync::Arc;

use tonic::{Request, Response, Status, async_trait};

use super::{
    call::{answer, principal},
    convert::service_info::service_info,
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
        let (principal, origin, _) = principal(request)?;
        answer(&origin, async {
            let info = get_service_info(&self.app, &principal, self.transport);
            Ok(GetServiceInfoResponse { service_info: Some(service_info(info)) })
        })
        .await
    }
}
