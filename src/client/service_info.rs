//! The version, the limits and the features of the server.

use super::{connection::Client, error::ClientError};
use crate::proto::v1::{GetServiceInfoRequest, GetServiceInfoResponse};

impl Client {
    /// Returns the version, the limits and the features of the server.
    pub async fn get_service_info(&self) -> Result<GetServiceInfoResponse, ClientError> {
        let request = GetServiceInfoRequest::default();
        self.call(request, |mut api, request| async move { api.service_info.get_service_info(request).await })
            .await
    }
}
