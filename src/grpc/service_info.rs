//! `ServiceInfoService`: decode, call the use case, encode.

use std::sync::Arc;

use tonic::{Request, Response, Status, async_trait};

use super::{
    call::{PrincipalCall, extract_principal, respond},
    convert,
};
use crate::{
    app::{
        App,
        service_info::{self, TransportLimits},
    },
    proto::v1::{self, service_info_service_server::ServiceInfoService},
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
        request: Request<v1::GetServiceInfoRequest>,
    ) -> Result<Response<v1::GetServiceInfoResponse>, Status> {
        let PrincipalCall { principal, origin, .. } = extract_principal(request).await?;
        respond(&origin, async {
            let info = service_info::get_service_info(&self.app, &principal, self.transport);
            Ok(v1::GetServiceInfoResponse { service_info: Some(convert::service_info::to_proto(info)) })
        })
        .await
    }
}
